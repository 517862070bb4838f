//! Memory that is filled ahead of its use, beside what the device computes.

use std::sync::OnceLock;

use cubecl::stream_id::StreamId;

/// Runs what sends memory to a device on a stream of its own, whichever thread asks, so that copies stand behind nothing that is
/// computed, and every batch takes the memory that the one before gave back.
///
/// CubeCL lets a kernel of another stream wait for the copy. It does not wait the other way round: what is let go on the host may be
/// filled again while a kernel still reads it. Whoever sends memory must keep it until the device has computed all that reads
/// it.
pub fn on_stream_of_copies<T>(send: impl FnOnce() -> T) -> T {
    static STREAM: OnceLock<StreamId> = OnceLock::new();
    // Streams are those of threads: the first thread that asks gives the number it would have had to a thread that ends.
    let stream = STREAM
        .get_or_init(|| std::thread::spawn(StreamId::current).join().unwrap_or_else(|_| StreamId::current()));
    stream.executes(send)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_send_on_one_stream_and_have_their_own_again() {
        let own = StreamId::current();
        let of_copies = on_stream_of_copies(StreamId::current);
        assert_ne!(of_copies, own);
        assert_eq!(StreamId::current(), own);
        let elsewhere = std::thread::spawn(|| on_stream_of_copies(StreamId::current)).join().unwrap();
        assert_eq!(elsewhere, of_copies);
    }
}
