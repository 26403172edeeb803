package bios.protocol.stored;

import org.apache.pekko.serialization.SerializerWithStringManifest;

/// A Pekko serializer of stored types. Each store has one subclass with its own identifier and types.
public abstract class StoredSerializer extends SerializerWithStringManifest {
    private final int identifier;
    private final StoredTypes types;

    /// @param identifier unique among all serializers; never changes
    protected StoredSerializer(int identifier, StoredTypes types) {
        this.identifier = identifier;
        this.types = types;
    }

    @Override public int identifier() {
        return identifier;
    }

    @Override public String manifest(Object value) {
        return types.manifest(value);
    }

    @Override public byte[] toBinary(Object value) {
        return types.write(value);
    }

    @Override public Object fromBinary(byte[] bytes, String manifest) {
        return types.read(manifest, bytes);
    }
}
