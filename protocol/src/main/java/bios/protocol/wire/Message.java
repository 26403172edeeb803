package bios.protocol.wire;

/// A message between actors that may be in different processes: serialized with Kryo, registered by explicit
/// id in [WireTypes]. Never stored.
public interface Message {}
