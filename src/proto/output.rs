//! The bounded buffer that replies are written into.
//!
//! The connection lends a buffer from its shard's pool while there is something
//! to answer and takes it back when all of it is sent, so that an idle session
//! owns none. Its capacity is the bound: an [`Output`] never grows, and to write
//! past its room is a bug of the caller, who asks for [`Output::room`] first.

/// Octets on their way to the client.
#[derive(Debug)]
pub struct Output {
    buffer: Vec<u8>,
}

impl Output {
    /// Appends to `buffer`, whose capacity is the bound.
    pub fn new(buffer: Vec<u8>) -> Self {
        Self { buffer }
    }

    /// Octets that still fit.
    pub fn room(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What is to be sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Gives the lent buffer back.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Appends `octets`, for which there is room.
    pub fn push(&mut self, octets: &[u8]) {
        assert!(octets.len() <= self.room(), "a reply overran its room");
        self.buffer.extend_from_slice(octets);
    }

    /// The buffer itself, for writers that stop at its capacity of their own
    /// accord, such as the encoder of message text.
    pub fn buffer_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lent_buffer_comes_back() {
        let mut out = Output::new(Vec::with_capacity(64));
        let room = out.room();
        assert!(out.is_empty() && room >= 64);
        out.push(b"+OK");
        assert_eq!((out.as_bytes(), out.room()), (&b"+OK"[..], room - 3));
        let buffer = out.into_buffer();
        assert_eq!(buffer.capacity(), room);
    }

    #[test]
    #[should_panic(expected = "overran")]
    fn it_does_not_grow() {
        let mut out = Output::new(Vec::with_capacity(4));
        let too_much = vec![b'x'; out.room() + 1];
        out.push(&too_much);
    }
}
