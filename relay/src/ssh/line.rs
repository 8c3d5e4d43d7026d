//! The bytes below SSH: a socket, or a channel through another host, that can be cut.
//!
//! russh runs each connection in a task of its own, which hears nothing of its owner while keys are exchanged. Whoever gives a
//! connection up cuts its line, and the task ends with it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Read at once: several packets of bulk output.
const READ_BYTES: usize = 128 * 1024;

/// Anything that bytes come from and go to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A stream that ends when it is cut.
pub(crate) struct Line {
    stream: BufReader<Box<dyn Stream>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Cuts a line when it is dropped.
pub(crate) struct Cutter(#[expect(dead_code, reason = "what counts is its drop")] DropGuard);

impl Line {
    pub(crate) fn new(stream: Box<dyn Stream>) -> (Self, Cutter) {
        let token = CancellationToken::new();
        let cut = Box::pin(token.clone().cancelled_owned());
        (Self { stream: BufReader::with_capacity(READ_BYTES, stream), cut }, Cutter(token.drop_guard()))
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncReadExt as _, time::timeout};

    use super::*;

    #[tokio::test]
    async fn who_reads_a_line_that_is_cut_hears_of_it() {
        let (here, _there) = tokio::io::duplex(16);
        let (mut line, cutter) = Line::new(Box::new(here));
        let cut = async {
            tokio::task::yield_now().await;
            drop(cutter);
        };
        let (read, ()) = tokio::join!(timeout(Duration::from_secs(5), line.read_u8()), cut);
        assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
