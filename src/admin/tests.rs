//! Over a real socket, with a client that knows no HTTP library.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;

fn started() -> (AdminHandle, Health) {
    let health = Health::default();
    let sources = Sources {
        metrics: Arc::new(|| "popcore_sessions_opened_total 5\n# EOF\n".to_owned()),
        health: health.clone(),
    };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let handle = start(AdminOptions { listen }, sources).expect("a free port");
    (handle, health)
}

/// Sends `request` and reads until the server closes.
fn exchange(handle: &AdminHandle, request: &str) -> String {
    let mut stream = TcpStream::connect(handle.address()).expect("connected");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn get(handle: &AdminHandle, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(handle, &request)
}

#[test]
fn metrics_come_with_their_type() {
    let (handle, _) = started();
    let answer = get(&handle, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(answer.ends_with("\r\n\r\npopcore_sessions_opened_total 5\n# EOF\n"));
}

#[test]
fn health_turns_when_the_server_drains() {
    let (handle, health) = started();
    assert!(get(&handle, "/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
    health.drain();
    let answer = get(&handle, "/healthz");
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\ndraining\n"), "{answer}");
}

#[test]
fn other_paths_and_methods_are_refused() {
    let (handle, _) = started();
    assert!(get(&handle, "/").starts_with("HTTP/1.1 404 Not Found\r\n"));
    assert!(get(&handle, "/metrics/").starts_with("HTTP/1.1 404 Not Found\r\n"));
    let post =
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = exchange(&handle, post);
    assert!(
        answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
        "{answer}"
    );
    assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
}

#[test]
fn a_head_beyond_its_bound_is_refused() {
    let (handle, _) = started();
    let padding = "a".repeat(limits::ADMIN_HEAD);
    // Exactly as much as fills the buffer, so that nothing is left unread and
    // the refusal is not lost to a reset.
    let request = format!("GET /metrics HTTP/1.1\r\nX: {padding}");
    let answer = exchange(&handle, &request[..limits::ADMIN_HEAD]);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn connections_beyond_the_bound_wait_for_their_turn() {
    let (handle, _) = started();
    let connect = |_| TcpStream::connect(handle.address()).expect("connected");
    let mut held: Vec<_> = (0..limits::ADMIN_CONNECTIONS).map(connect).collect();
    // Each is known to be accepted once it has had an answer.
    for stream in &mut held {
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).expect("sent");
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("answered");
    }
    let mut waiting = TcpStream::connect(handle.address()).expect("in the backlog");
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    waiting.write_all(request).expect("sent");
    waiting.set_nonblocking(true).expect("set");
    let early = waiting.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(io::ErrorKind::WouldBlock));
    waiting.set_nonblocking(false).expect("set");
    drop(held.pop());
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[test]
fn dropping_the_handle_closes_what_is_open() {
    let (handle, _) = started();
    let address = handle.address();
    let mut idle = TcpStream::connect(address).expect("connected");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    idle.read_exact(&mut [0]).expect("answered");
    drop(handle);
    let mut rest = Vec::new();
    // The connection ends, cleanly or with a reset: it does not stay.
    let _ = idle.read_to_end(&mut rest);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_taken_address_is_named_with_its_remedy() {
    let (handle, _) = started();
    let sources = Sources {
        metrics: Arc::new(String::new),
        health: Health::default(),
    };
    let listen = handle.address();
    let error = start(AdminOptions { listen }, sources)
        .expect_err("taken")
        .to_string();
    assert!(error.starts_with(&format!("admin.listen: {listen} cannot be listened on: ")));
    assert!(error.ends_with("or remove [admin]"), "{error}");
}
