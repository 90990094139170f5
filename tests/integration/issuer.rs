//! The web server of somebody who issues bearer tokens, or knows users: it shows keys, says
//! the same of every user, and answers questions about tokens.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

/// What the web server says, and how often it was asked.
#[derive(Default)]
struct Said {
    keys: Mutex<Option<String>>,
    tokens: Mutex<HashMap<String, Value>>,
    asked: AtomicUsize,
    /// Milliseconds that each answer takes.
    takes: AtomicU64,
    is_over: AtomicBool,
}

/// A web server of an issuer; it ends with the test.
pub(crate) struct Issuer {
    address: SocketAddr,
    said: Arc<Said>,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    /// One that shows no keys and knows no token.
    pub(crate) fn start() -> Issuer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let said = Arc::<Said>::default();
        let own = Arc::clone(&said);
        let serve = move || {
            for stream in listener.incoming() {
                if own.is_over.load(Ordering::SeqCst) {
                    return;
                }
                own.answer(&stream.expect("a connection"));
            }
        };
        Issuer {
            address,
            said,
            thread: Some(thread::spawn(serve)),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Shows these keys from now on, or says this of users; `None`: it fails.
    pub(crate) fn show(&self, keys: Option<String>) {
        *self.said.keys.lock().expect("unpoisoned") = keys;
    }

    /// Says this of a token.
    pub(crate) fn know(&self, token: &str, answer: Value) {
        let mut tokens = self.said.tokens.lock().expect("unpoisoned");
        tokens.insert(token.to_owned(), answer);
    }

    /// Takes so long for each answer, one after the other.
    pub(crate) fn slow_down(&self, millis: u64) {
        self.said.takes.store(millis, Ordering::SeqCst);
    }

    /// How many questions it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.said.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.said.is_over.store(true, Ordering::SeqCst);
        // Its accept has to return once more.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Said {
    fn answer(&self, mut stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).expect("a line") == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let mut lines = head.iter().filter_map(|line| line.split_once(": "));
            lines
                .find(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let length = header("content-length").map_or(0, |text| text.parse().expect("a number"));
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let body = String::from_utf8(body).expect("UTF-8");
        self.asked.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(self.takes.load(Ordering::SeqCst)));
        let answer = match head[0].as_str() {
            "GET /keys HTTP/1.1" | "POST /users HTTP/1.1" => {
                self.keys.lock().expect("unpoisoned").clone()
            }
            // popcore:s:cret, each as in a form.
            "POST /ask HTTP/1.1"
                if header("authorization") == Some("Basic cG9wY29yZTpzJTNBY3JldA==") =>
            {
                Some(self.of_token(&body))
            }
            other => panic!("{other} {head:?}"),
        };
        let (status, text) = match answer {
            Some(text) => ("200 OK", text),
            None => ("503 Service Unavailable", String::new()),
        };
        let length = text.len();
        let whole = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
        );
        // popcore may have given up.
        let _ = stream.write_all(whole.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
    }

    fn of_token(&self, body: &str) -> String {
        let token = body
            .split('&')
            .find_map(|field| field.strip_prefix("token="));
        let tokens = self.tokens.lock().expect("unpoisoned");
        let known = token.and_then(|token| tokens.get(token));
        known.map_or_else(|| json!({"active": false}).to_string(), Value::to_string)
    }
}
