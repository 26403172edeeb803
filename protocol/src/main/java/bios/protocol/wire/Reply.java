package bios.protocol.wire;

/// A message that answers a question and may have any size. Between processes one that is larger than a frame
/// is replaced by a [LargeReply]; a caller in another process must handle that.
public interface Reply extends Message {}
