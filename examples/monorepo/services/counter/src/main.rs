//! Counts what it is asked for, over HTTP: `GET /tea` answers how often tea was asked for.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, io, thread};

/// A request line longer than this is not read.
const LONGEST_LINE: u64 = 4096;

#[derive(Default)]
struct Counts(Mutex<HashMap<String, u64>>);

impl Counts {
    fn ask(&self, thing: &str) -> u64 {
        let mut counts = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        let count = counts.entry(thing.to_owned()).or_default();
        *count += 1;
        *count
    }
}

/// The status line and the body for a request line such as `GET /tea HTTP/1.1`.
fn answer(counts: &Counts, request: &str) -> (&'static str, String) {
    let mut words = request.split_whitespace();
    match (words.next(), words.next()) {
        (Some("GET"), Some("/healthz")) => ("200 OK", "ok\n".to_owned()),
        (Some("GET"), Some(path)) => match path.trim_start_matches('/') {
            "" => ("404 Not Found", "ask for something\n".to_owned()),
            thing => ("200 OK", format!("{thing}: {}\n", counts.ask(thing))),
        },
        (Some(_), Some(_)) => ("405 Method Not Allowed", String::new()),
        _ => ("400 Bad Request", String::new()),
    }
}

fn serve(counts: &Counts, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    BufReader::new((&stream).take(LONGEST_LINE)).read_line(&mut line)?;
    let (status, body) = answer(counts, &line);
    write!(
        &stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn main() -> io::Result<()> {
    let address = env::var("LISTEN").unwrap_or_else(|_| "0.0.0.0:8080".to_owned());
    let listener = TcpListener::bind(&address)?;
    eprintln!("listening on {address}");
    let counts = Arc::new(Counts::default());
    for stream in listener.incoming() {
        let (stream, counts) = (stream?, Arc::clone(&counts));
        thread::spawn(move || {
            if let Err(error) = serve(&counts, stream) {
                eprintln!("request: {error}");
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_thing() {
        let counts = Counts::default();
        let ask = |line| answer(&counts, line).1;
        assert_eq!(ask("GET /tea HTTP/1.1"), "tea: 1\n");
        assert_eq!(ask("GET /cup HTTP/1.1"), "cup: 1\n");
        assert_eq!(ask("GET /tea HTTP/1.1"), "tea: 2\n");
    }

    #[test]
    fn refuses_the_rest() {
        let counts = Counts::default();
        let status = |line| answer(&counts, line).0;
        assert_eq!(status("GET / HTTP/1.1"), "404 Not Found");
        assert_eq!(status("POST /tea HTTP/1.1"), "405 Method Not Allowed");
        assert_eq!(status(""), "400 Bad Request");
        assert_eq!(status("GET /healthz HTTP/1.1"), "200 OK");
    }
}
