package bios.protocol.wire;

import bios.protocol.client.ClientMessage;
import com.esotericsoftware.kryo.io.Input;
import com.esotericsoftware.kryo.io.Output;
import java.nio.BufferOverflowException;
import java.nio.ByteBuffer;
import java.util.Map;
import java.util.function.LongConsumer;
import org.apache.pekko.actor.ExtendedActorSystem;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorRefResolver;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.serialization.ByteBufferSerializer;
import org.apache.pekko.serialization.SerializerWithStringManifest;

/// Serializes the messages between a JVM client and the gateway: the only serializer for messages that their
/// actor systems have. Bytes that cannot be read become a [ClientMessage.Unreadable], so that the receiver
/// decides what to do about the sender.
public final class ClientSerializer extends SerializerWithStringManifest implements ByteBufferSerializer {
    static final int IDENTIFIER = 52_002;
    /// The form of the bytes, which [GrowingRecords] define; the versions of the protocol are in
    /// [ClientMessage.Connect].
    private static final String FORM = "1";
    private static final KryoPool PAYLOADS = new KryoPool(() -> new ClientKryo(new ClientTypes(),
            ClientSerializer::refuse, text -> refuse(null)));

    private final KryoPool kryos;

    /// Called by Pekko, which finds the class by its name.
    public ClientSerializer(ExtendedActorSystem system) {
        var refs = ActorRefResolver.get(Adapter.toTyped(system));
        kryos = new KryoPool(() ->
                new ClientKryo(new ClientTypes(), refs::toSerializationFormat, refs::resolveActorRef));
    }

    private static <T> T refuse(ActorRef<?> ref) {
        throw new IllegalArgumentException("a payload holds no reference: " + ref);
    }

    /// Encodes a request or an answer, which messages carry as bytes.
    public static byte[] encode(Object payload) {
        return PAYLOADS.encode(payload);
    }

    /// Decodes a request or an answer; throws a [RuntimeException] that says why it cannot be read.
    public static Object decode(byte[] payload) {
        return PAYLOADS.read(new Input(payload));
    }

    /// The same for bytes of strangers.
    ///
    /// @param heap is told the bytes that elements of lists and maps take on the heap beside their own,
    ///     before they are read; what it throws is passed on
    public static Object decode(byte[] payload, LongConsumer heap) {
        return PAYLOADS.read(new Input(payload), Map.of(ClientKryo.HEAP, heap));
    }

    @Override public int identifier() {
        return IDENTIFIER;
    }

    @Override public String manifest(Object message) {
        return FORM;
    }

    @Override public byte[] toBinary(Object message) {
        return kryos.encode(message);
    }

    @Override public void toBinary(Object message, ByteBuffer buffer) {
        Output output = kryos.write(message);
        try {
            if (output.position() > buffer.remaining()) throw new BufferOverflowException();
            buffer.put(output.getBuffer(), 0, output.position());
        } finally {
            kryos.release(output);
        }
    }

    @Override public Object fromBinary(byte[] bytes, String manifest) {
        if (!manifest.equals(FORM)) return new ClientMessage.Unreadable("its form is '" + manifest + "'");
        try {
            return kryos.read(new Input(bytes));
        } catch (RuntimeException wrong) { // Kryo, and the constructors of records
            return new ClientMessage.Unreadable(String.valueOf(wrong.getMessage()));
        }
    }

    @Override public Object fromBinary(ByteBuffer buffer, String manifest) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return fromBinary(bytes, manifest);
    }
}
