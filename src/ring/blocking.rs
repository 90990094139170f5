//! Work that may wait, on the shard's pool of threads.

/// Runs `work` on a pool thread and resolves to what it gave. For what the ring
/// has no operation for: listing a directory, and removals, of which one trip to
/// a thread does a whole session's.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(work).await
}
