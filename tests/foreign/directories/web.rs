//! Web services: one of the test's own that answers both forms, asked by popcore, and by
//! nginx's mail proxy in front of popcore.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::served::{Client, Served};
use super::tls::{certificates, only_its_authority_is_believed};
use super::{
    MASTER_LOGIN, MASTERS, PASSWORD, a_master_user_gets_in, an_outage_is_survived, until_listening,
    users, users_get_in,
};
use crate::site::free_port;

const KEY: &str = "X-Auth-Key: super secret";

/// A service that knows [`USERS`]. Where nginx is to go is what it answers as
/// `Auth-Server` and `Auth-Port`.
struct Service {
    port: u16,
    running: Arc<AtomicBool>,
}

impl Service {
    fn start(port: u16, backend: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let running = Arc::new(AtomicBool::new(true));
        let own = Arc::clone(&running);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if !own.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.expect("a connection");
                // A client may leave in the midst of its question.
                thread::spawn(move || answer(&stream, backend).unwrap_or_default());
            }
        });
        Self { port, running }
    }

    fn stop(&self) {
        self.running.store(false, Ordering::SeqCst);
        // Wakes it; the listener is closed before the next one takes the port.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        super::until("the service to be gone", || {
            TcpStream::connect(("127.0.0.1", self.port))
                .is_err()
                .then_some(())
        });
    }
}

/// Reads one request and answers it.
fn answer(stream: &TcpStream, backend: u16) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        headers.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        let found = headers.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        found.unwrap_or_default().to_owned()
    };
    let length = header("Content-Length").parse().unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut text = String::from("HTTP/1.1 200 OK\r\nConnection: close\r\n");
    let mut out = String::new();
    if header("X-Auth-Key") != "super secret" {
        text = String::from("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n");
    } else if length > 0 {
        out = judge_object(&serde_json::from_slice(&body)?).to_string();
    } else {
        let (user, password) = (
            unescaped(&header("Auth-User")),
            unescaped(&header("Auth-Pass")),
        );
        assert_eq!(header("Auth-Protocol"), "pop3");
        assert_eq!(header("Client-IP"), "127.0.0.1");
        let good = users().any(|(name, ..)| name == user) && password == PASSWORD;
        let status = if good {
            "OK"
        } else {
            "Invalid login or password"
        };
        write!(
            text,
            "Auth-Status: {status}\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: {backend}\r\n"
        )
        .expect("a String");
    }
    write!(text, "Content-Length: {}\r\n\r\n{out}", out.len()).expect("a String");
    let mut stream = stream;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

fn judge_object(question: &Value) -> Value {
    let found = users().find(|(name, ..)| question["user"] == **name);
    let Some((_, attribute, value)) = found else {
        return json!({"result": "unknown"});
    };
    assert_eq!(question["protocol"], "pop3");
    let mut answer = json!({"result": "rejected"});
    let is_proved = question["question"] == "user";
    if is_proved || question["password"] == PASSWORD {
        answer["result"] = "accepted".into();
        if !attribute.is_empty() {
            answer[attribute] = value.into();
        }
    }
    answer
}

fn unescaped(text: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first == b'%' {
            let digits = str::from_utf8(&behind[..2]).expect("two digits");
            octets.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
            rest = &behind[2..];
        } else {
            octets.push(*first);
        }
    }
    String::from_utf8(octets).expect("UTF-8")
}

fn serve(service: &Service, form: &str) -> Served {
    let url = format!("http://127.0.0.1:{}/auth", service.port);
    serve_at(&url, form, "")
}

/// A popcore that asks at this URL, with keys more.
fn serve_at(url: &str, form: &str, keys: &str) -> Served {
    serve_with("", url, form, keys)
}

/// The same with keys of `[auth]`.
fn serve_with(auth: &str, url: &str, form: &str, keys: &str) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("key"), KEY).expect("own folder");
    let section = format!(
        "{auth}[[auth.directory]]\nkind = \"http\"\nform = \"{form}\"\ntimeout = \"2s\"\n\
         url = \"{url}\"\nheader_file = \"key\"\n{keys}"
    );
    Served::start(folder, &section)
}

fn everything(form: &str, knows_words: bool) {
    let service = Service::start(0, 1);
    let served = serve(&service, form);
    users_get_in(&served, knows_words);
    let (said, well) = served.check();
    assert!(well && said.contains("it answers"), "{said}");
    let port = service.port;
    an_outage_is_survived(&served, || service.stop(), || drop(Service::start(port, 1)));
    assert!(!served.log().contains("super secret"), "{}", served.log());
}

#[test]
fn users_of_a_web_service_as_nginx_asks() {
    everything("nginx", false);
}

#[test]
fn users_of_a_web_service_in_json() {
    let service = Service::start(0, 1);
    let url = format!("http://127.0.0.1:{}/auth", service.port);
    let served = serve_with(MASTER_LOGIN, &url, "json", MASTERS);
    a_master_user_gets_in(&served);
    drop(served);
    everything("json", true);
}

/// nginx in a folder of its own, with this configuration.
struct Nginx {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Nginx {
    fn start(folder: TempDir, port: u16, sections: &str) -> Self {
        let path = folder.path().display();
        let text =
            format!("daemon off;\nerror_log {path}/error.log;\npid {path}/pid;\n{sections}\n");
        fs::write(folder.path().join("nginx.conf"), text).expect("own folder");
        let child = Self::run(&folder, port);
        Self {
            folder,
            port,
            child,
        }
    }

    fn run(folder: &TempDir, port: u16) -> Child {
        let path = folder.path();
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx
            .arg("-p")
            .arg(path)
            .arg("-c")
            .arg(path.join("nginx.conf"));
        nginx.arg("-e").arg(path.join("error.log"));
        let mut child = nginx.stdin(Stdio::null()).spawn().expect("it is installed");
        until_listening(&mut child, port);
        child
    }

    fn again(&mut self) {
        self.child = Self::run(&self.folder, self.port);
    }

    /// Its workers end with it when it is asked to end.
    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // It fails where it has ended, which is what is wanted.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}

/// nginx with TLS before the service: whose certificate is believed, and what happens
/// while it is away.
#[test]
fn users_of_a_web_service_behind_tls_and_nginx() {
    let service = Service::start(0, 1);
    let folder = tempfile::tempdir().expect("a folder");
    certificates(folder.path());
    let port = free_port();
    let (path, behind) = (folder.path().display(), service.port);
    let section = format!(
        "events {{}}\nhttp {{ access_log off;\n\
         server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {path}/cert.pem;\n\
         ssl_certificate_key {path}/key.pem;\n\
         location / {{ proxy_pass http://127.0.0.1:{behind}; }} }} }}"
    );
    let nginx = RefCell::new(Nginx::start(folder, port, &section));
    let folder = nginx.borrow().folder.path().to_owned();
    let url = format!("https://127.0.0.1:{port}/auth");
    let serve = |ca: &Path| serve_at(&url, "json", &format!("ca = \"{}\"\n", ca.display()));
    only_its_authority_is_believed(&folder, serve);
    let popcore = serve(&folder.join("ca.pem"));
    an_outage_is_survived(
        &popcore,
        || nginx.borrow_mut().stop(),
        || nginx.borrow_mut().again(),
    );
    drop(service);
}

/// nginx asks the service, goes to popcore, and popcore asks it again.
#[test]
fn nginx_in_front_of_popcore() {
    let first = Service::start(0, 1);
    let served = serve(&first, "nginx");
    let service = Service::start(0, served.pop3().port());
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\nevents {{}}\n\
         mail {{\n  auth_http 127.0.0.1:{auth}/auth;\n  auth_http_header X-Auth-Key \"super secret\";\n\
         \n  server {{ listen 127.0.0.1:{port}; protocol pop3; pop3_auth plain; }}\n}}\n",
        auth = service.port,
    );
    let nginx = Nginx::start(folder, port, &text);
    for user in ["ann@example.net", "bob", "o'hara"] {
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        let reply = client.log_in(user, PASSWORD);
        assert!(reply.starts_with("+OK"), "{user}: {reply}");
        assert!(client.say("STAT").starts_with("+OK 0 0"), "{user}");
        client.quit();
    }
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    assert!(client.log_in("bob", "wrong").starts_with("-ERR"));
    drop(nginx);
}
