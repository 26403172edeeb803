package bios.protocol.wire;

/// A message that answers a question and may have any size. Between processes one that is larger than a frame
/// is replaced by a [LargeReply]; whoever asks another process must be ready for that.
public interface Reply extends Message {}
