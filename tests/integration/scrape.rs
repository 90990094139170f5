//! What `/metrics` and `/healthz` say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::patience::DEADLINE;

/// The answer to GET: status line and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("an option");
    let request = format!("GET {path} HTTP/1.1\r\nHost: popcore\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.lines().next().expect("a status line");
    (status.to_owned(), body.to_owned())
}

/// Every series of one scrape.
pub(crate) struct Scrape(String);

impl Scrape {
    pub(crate) fn of(address: SocketAddr) -> Scrape {
        let (status, body) = get(address, "/metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(body.ends_with("# EOF\n"), "{body}");
        Scrape(body)
    }

    /// One series, its labels and all.
    pub(crate) fn value(&self, series: &str) -> u64 {
        let found = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let found = found.unwrap_or_else(|| panic!("no series {series}"));
        found
            .parse()
            .unwrap_or_else(|error| panic!("{series} {found}: {error}"))
    }

    /// All series of a name together.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        self.values(name).into_iter().sum()
    }

    /// The values of all series of a name.
    pub(crate) fn values(&self, name: &str) -> Vec<u64> {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest.strip_prefix('{')?.split_once("} ")?.1;
            Some(value.parse::<u64>().expect("a number"))
        });
        values.collect()
    }
}
