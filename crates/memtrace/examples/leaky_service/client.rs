//! A client that speaks just enough HTTP/1.1: GET over one connection that is kept open.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One open connection to the service.
#[derive(Debug)]
pub(crate) struct Client {
    addr: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects to the service.
    ///
    /// **Errors.** As of [`TcpStream::connect`].
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Client { addr, stream: BufReader::new(stream) })
    }

    /// Sends `GET target` and reads the whole body.
    ///
    /// **Errors.** If the connection fails, if the answer is not HTTP with a content length, or if
    /// its status is not 200; the message then carries the target, the status line and the body.
    pub(crate) async fn get(&mut self, target: &str) -> io::Result<Vec<u8>> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {}\r\n\r\n", self.addr);
        self.stream.get_mut().write_all(request.as_bytes()).await?;

        let status = self.read_line().await?;
        let mut content_length = None;
        loop {
            let line = self.read_line().await?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                content_length = value.trim().parse::<usize>().ok();
            }
        }
        let n_bytes = content_length.ok_or_else(|| {
            io::Error::other(format!("{target}: {status}: an answer without a content length"))
        })?;
        let mut body = vec![0; n_bytes];
        self.stream.read_exact(&mut body).await?;

        if status.split(' ').nth(1) != Some("200") {
            let body = String::from_utf8_lossy(&body);
            return Err(io::Error::other(format!("{target}: {status}: {}", body.trim_end())));
        }
        Ok(body)
    }

    async fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} closed the connection before the answer was complete", self.addr),
            ));
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}
