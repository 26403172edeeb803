package bios.protocol.wire;

/// A message between actors that may cross processes: serialized with Kryo, registered by explicit id in
/// `KryoRegistry`. Never stored.
public interface Message {}
