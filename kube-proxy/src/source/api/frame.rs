//! Watch streams cut into frames: a 4-byte big-endian length before each event in protobuf, one line per
//! event in JSON. Pure.

use bytes::{Buf, Bytes, BytesMut};

/// The longest event or list item that is read. The API server itself stores objects of at most 1.5 MiB.
pub(super) const MAX_OBJECT: usize = 16 << 20;

/// How bodies are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Encoding {
    /// From the value of a `Content-Type` header; parameters such as `stream=watch` do not matter.
    pub(super) fn of_content_type(value: &str) -> Option<Self> {
        match value.split(';').next().unwrap_or_default().trim() {
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// An event longer than [`MAX_OBJECT`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of {length} bytes, which is over the limit of {MAX_OBJECT}")]
pub(super) struct FrameTooLong {
    length: usize,
}

/// Collects the pieces of a body as they arrive, and gives out whole events.
#[derive(Debug)]
pub(super) struct Frames {
    encoding: Encoding,
    buffer: BytesMut,
    /// This much of the buffer is known to hold no line feed.
    scanned: usize,
}

impl Frames {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            buffer: BytesMut::new(),
            scanned: 0,
        }
    }

    /// Takes in the next piece of the body.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole event, without its length or line feed.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        match self.encoding {
            Encoding::Protobuf => self.next_by_length(),
            Encoding::Json => self.next_line(),
        }
    }

    /// Whether the last event was whole. A stream that ends otherwise was cut off.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.iter().all(u8::is_ascii_whitespace)
    }

    fn next_by_length(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > MAX_OBJECT {
            return Err(FrameTooLong { length });
        }
        if rest.len() < length {
            let missing = length - rest.len();
            self.buffer.reserve(missing);
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        loop {
            let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
            let Some(position) = unseen.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                if self.scanned > MAX_OBJECT {
                    return Err(FrameTooLong { length: self.scanned });
                }
                return Ok(None);
            };
            let line = self.buffer.split_to(self.scanned + position + 1).freeze();
            self.scanned = 0;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(frames: &mut Frames) -> Vec<Bytes> {
        let mut found = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            found.push(frame);
        }
        found
    }

    /// The events found when the stream arrives in two pieces, cut at every possible place.
    fn assert_any_cut(encoding: Encoding, stream: &[u8], expected: &[&[u8]]) {
        for cut in 0..=stream.len() {
            let mut frames = Frames::new(encoding);
            frames.push(&stream[..cut]);
            let mut found = collect(&mut frames);
            frames.push(&stream[cut..]);
            found.extend(collect(&mut frames));
            assert_eq!(found, expected, "cut at {cut}");
            assert!(frames.is_empty());
        }
        let mut frames = Frames::new(encoding);
        let mut found = Vec::new();
        for byte in stream {
            frames.push(&[*byte]);
            found.extend(collect(&mut frames));
        }
        assert_eq!(found, expected, "byte by byte");
    }

    #[test]
    fn protobuf_events_are_found_wherever_the_stream_is_cut() {
        let stream = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x02de";
        assert_any_cut(Encoding::Protobuf, stream, &[b"abc", b"", b"de"]);
    }

    #[test]
    fn json_events_are_found_wherever_the_stream_is_cut() {
        let stream = b"{\"a\":1}\n\n \r\n{\"b\":\"\\n\"}\n";
        assert_any_cut(Encoding::Json, stream, &[b"{\"a\":1}\n", b"{\"b\":\"\\n\"}\n"]);
    }

    #[test]
    fn a_stream_that_ends_inside_an_event_is_noticed() {
        for (encoding, stream) in [
            (Encoding::Protobuf, &b"\0\0\0\x03ab"[..]),
            (Encoding::Protobuf, b"\0\0"),
            (Encoding::Json, b"{\"a\":"),
        ] {
            let mut frames = Frames::new(encoding);
            frames.push(stream);
            if stream.len() > 2 {
                assert_eq!(frames.next(), Ok(None));
                assert!(!frames.is_empty());
            }
        }
    }

    #[test]
    fn an_event_over_the_limit_is_an_error_and_is_not_waited_for() {
        let mut frames = Frames::new(Encoding::Protobuf);
        frames.push(&u32::MAX.to_be_bytes());
        assert!(frames.next().is_err());
        let mut frames = Frames::new(Encoding::Json);
        frames.push(&vec![b'a'; MAX_OBJECT + 1]);
        assert!(frames.next().is_err());
    }

    #[test]
    fn content_types_are_told_apart() {
        for (value, expected) in [
            ("application/vnd.kubernetes.protobuf", Some(Encoding::Protobuf)),
            (
                "application/vnd.kubernetes.protobuf;stream=watch",
                Some(Encoding::Protobuf),
            ),
            ("application/json; charset=utf-8", Some(Encoding::Json)),
            ("text/html", None),
            ("", None),
        ] {
            assert_eq!(Encoding::of_content_type(value), expected, "{value}");
        }
    }
}
