//! A client that speaks just enough HTTP/1.1, in buffers of its own: it allocates when it connects,
//! and never again.

use std::fmt::Arguments;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Room for a request and for an answer.
const N_BYTES: usize = 64 << 10;

/// One open connection to the service.
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; N_BYTES] })
    }

    /// Asks for something; returns the sum of the answer's bytes, and how long it took.
    pub(super) fn get(&mut self, target: Arguments<'_>) -> io::Result<(u64, Duration)> {
        self.ask(format_args!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n"), &[])
    }

    /// Puts an order; returns the sum of the answer's bytes, and how long it took.
    pub(super) fn put(&mut self, order: u32, body: &[u8]) -> io::Result<(u64, Duration)> {
        let n_bytes = body.len();
        let head = format_args!(
            "PUT /orders/{order} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {n_bytes}\r\n\r\n"
        );
        self.ask(head, body)
    }

    fn ask(&mut self, head: Arguments<'_>, body: &[u8]) -> io::Result<(u64, Duration)> {
        let mut room = &mut self.buffer[..];
        room.write_fmt(head)?;
        room.write_all(body)?;
        let n_bytes = N_BYTES - room.len();
        let began = Instant::now();
        self.stream.write_all(&self.buffer[..n_bytes])?;
        let mut n_read = 0;
        let answer = loop {
            let n = self.stream.read(&mut self.buffer[n_read..])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            n_read += n;
            if let Some(body) = body_of(&self.buffer[..n_read])? {
                break body;
            }
        };
        let elapsed = began.elapsed();
        Ok((answer.iter().map(|&byte| u64::from(byte)).sum(), elapsed))
    }
}

/// Returns the body of an answer; `None` if it is not complete.
///
/// **Errors**: if the answer is not a 200 with a content length.
fn body_of(answer: &[u8]) -> io::Result<Option<&[u8]>> {
    let Some(head_len) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, body) = answer.split_at(head_len + 4);
    let head = str::from_utf8(head).map_err(io::Error::other)?;
    let n_bytes = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match n_bytes {
        Some(n_bytes) if head.starts_with("HTTP/1.1 200 ") => Ok(body.get(..n_bytes)),
        _ => Err(io::Error::other(format!("the service answered {:?}", head.lines().next()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_its_body_is_as_long_as_the_head_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(body_of(answer).unwrap(), Some(&b"abc"[..]));
        for n_bytes in 0..answer.len() {
            assert_eq!(body_of(&answer[..n_bytes]).unwrap(), None, "{n_bytes}");
        }
    }

    #[test]
    fn an_answer_that_is_not_what_was_asked_for_is_shown() {
        let error = body_of(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("404 Not Found"), "{error}");
        assert!(body_of(b"HTTP/1.1 200 OK\r\n\r\nabc").is_err());
    }
}
