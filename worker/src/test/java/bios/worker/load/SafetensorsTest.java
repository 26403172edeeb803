package bios.worker.load;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.worker.device.FrozenMatrix;
import bios.worker.load.TestTensors.Values;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SafetensorsTest {
    @TempDir Path folder;

    @Test void writtenTensorsAreReadBackBitForBit() {
        for (int seed = 0; seed < 200; seed++) {
            Random random = new Random(seed);
            SortedMap<String, Values> tensors = new TreeMap<>();
            for (int i = random.nextInt(6); i > 0; i--) {
                List<Integer> shape = random.ints(random.nextInt(4), 0, 9).boxed().toList();
                float[] values = new float[shape.stream().reduce(1, (a, b) -> a * b) + 5];
                for (int k = 0; k < values.length; k++) values[k] = Float.intBitsToFloat(random.nextInt());
                tensors.put(random.nextBoolean() ? "t" + i : "né.\"\\" + i, new Values(values, 5, shape));
            }
            Map<String, String> metadata = random.nextBoolean() ? Map.of() : Map.of("b", "2", "a", "1\n");
            byte[] bytes = TestTensors.bytes(tensors, metadata);
            assertArrayEquals(bytes, TestTensors.bytes(new TreeMap<>(tensors), metadata));
            assertEquals(0, ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).getLong() % 8);
            try (Safetensors read = Safetensors.of("bytes", bytes)) {
                assertEquals(tensors.keySet(), read.names());
                assertEquals(metadata, read.metadata());
                tensors.forEach((name, v) -> {
                    float[] got = read.floats(name,
                            v.shape().stream().mapToLong(Integer::longValue).toArray());
                    for (int k = 0; k < got.length; k++)
                        assertEquals(Float.floatToRawIntBits(v.values()[k + 5]),
                                Float.floatToRawIntBits(got[k]));
                });
            }
        }
    }

    @Test void everyTruncationIsRefused() {
        byte[] whole = file("{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}}", 8);
        for (int n = 0; n < whole.length; n++) {
            byte[] cut = Arrays.copyOf(whole, n);
            assertThrows(ModelRefused.class, () -> Safetensors.of("cut", cut).close(), "of " + n + " bytes");
        }
        Safetensors.of("whole", whole).close();
    }

    @Test void bitFlipsInAHeaderThrowModelRefusedOnly() {
        byte[] whole = file("{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]},"
                + "'b':{'dtype':'BF16','shape':[1,3],'data_offsets':[8,14]}}", 14);
        for (int bit = 0; bit < 8 * (whole.length - 14); bit++) {
            byte[] damaged = whole.clone();
            damaged[bit / 8] ^= (byte) (1 << (bit % 8));
            try (Safetensors read = Safetensors.of("damaged", damaged)) {
                for (String name : read.names()) read.entry(name).memory().byteSize();
            } catch (ModelRefused expected) {
                assertTrue(expected.getMessage().startsWith("damaged: "));
            }
        }
    }

    @ParameterizedTest @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
            "not json at all | not JSON",
            "[] | not a JSON object",
            "{'a':{'dtype':'F31','shape':[2],'data_offsets':[0,8]}} | 'a' has the unknown dtype 'F31'",
            "{'a':{'dtype':'F32','shape':[3],'data_offsets':[0,8]}} | 'a' has 8 bytes, but F32 [3] needs 12",
            "{'a':{'dtype':'F32','shape':[-2],'data_offsets':[0,8]}} | 'a' has the shape [-2]",
            "{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,16]}} | 'a' lies at [0,16] of 8 bytes",
            "{'a':{'dtype':'F32','shape':[2],'data_offsets':[8,0]}} | 'a' lies at [8,0]",
            "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}} | 4 bytes after its last tensor",
            "{'a':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}} | "
                    + "'a' begins at byte 4, where it leaves a gap",
            "{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]},"
                    + "'b':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}} | "
                    + "'b' begins at byte 4, where it overlaps",
            "{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]},"
                    + "'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}} | Duplicate field 'a'",
            "{'a':{'dtype':'F32','shape':[4611686018427387904,4],'data_offsets':[0,8]}} | impossible shape",
            "{'a':{'dtype':'F32','shape':[2]}} | 'a' has no shape or no data_offsets"})
    void aDamagedHeaderIsRefusedByName(String header, String message) {
        ModelRefused refused = assertThrows(ModelRefused.class,
                () -> Safetensors.of("x", file(header, 8)).close());
        assertTrue(refused.getMessage().contains(message), refused.getMessage());
    }

    @Test void aTensorOfAWrongDtypeShapeOrNameIsNamedInTheRefusal() {
        try (Safetensors read = Safetensors.of("x",
                file("{'a':{'dtype':'I32','shape':[2],'data_offsets':[0,8]}}", 8))) {
            assertTrue(message(() -> read.floats("a", 2)).contains("'a' has dtype I32"));
            assertTrue(message(() -> read.floats("a", 1, 2)).contains("'a' has shape [2], expected [1, 2]"));
            assertTrue(message(() -> read.floats("b", 2)).contains("'b' is missing"));
        }
    }

    @Test void halfPrecisionIsWidenedExactlyAndOddOffsetsAreAligned() {
        byte[] bytes = file("{'a':{'dtype':'U8','shape':[1],'data_offsets':[0,1]},"
                + "'h':{'dtype':'F16','shape':[1,2],'data_offsets':[1,5]},"
                + "'w':{'dtype':'BF16','shape':[1],'data_offsets':[5,7]}}", 7);
        ByteBuffer data = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
        data.putShort(bytes.length - 6, Float.floatToFloat16(-0.333f));
        data.putShort(bytes.length - 4, (short) 1);
        data.putShort(bytes.length - 2, (short) (Float.floatToIntBits(-2.5f) >>> 16));
        try (Safetensors read = Safetensors.of("x", bytes)) {
            assertArrayEquals(new float[] {Float.float16ToFloat(Float.floatToFloat16(-0.333f)), 0x1p-24f},
                    read.floats("h", 1, 2));
            assertArrayEquals(new float[] {-2.5f}, read.floats("w", 1));
            FrozenMatrix matrix = read.matrix("h", 1, 2);
            assertEquals(0, matrix.memory().address() % 2);
            assertEquals(4, matrix.memory().byteSize());
        }
    }

    @Test void shardsAreReadThroughTheirIndexAndMissingOnesRefused() throws Exception {
        Files.write(folder.resolve("m-1.safetensors"),
                file("{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}}", 8));
        Files.write(folder.resolve("m-2.safetensors"),
                file("{'b':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}", 4));
        index("{'weight_map':{'a':'m-1.safetensors','b':'m-2.safetensors'}}");
        try (Safetensors read = Safetensors.open(folder)) {
            assertEquals(Set.of("a", "b"), read.names());
        }
        index("{'weight_map':{'a':'m-1.safetensors','c':'m-2.safetensors'}}");
        assertTrue(message(() -> Safetensors.open(folder)).contains("'c'"));
        index("{'weight_map':{'a':'m-1.safetensors','c':'m-3.safetensors'}}");
        assertTrue(message(() -> Safetensors.open(folder)).contains("m-3.safetensors: is missing"));
        index("{'weight_map':{'a':'../m-1.safetensors'}}");
        assertTrue(message(() -> Safetensors.open(folder)).contains("outside the folder"));
        Files.delete(folder.resolve("model.safetensors.index.json"));
        assertTrue(message(() -> Safetensors.open(folder)).contains("neither"));
    }

    private void index(String json) throws Exception {
        Files.writeString(folder.resolve("model.safetensors.index.json"), json.replace('\'', '"'));
    }

    private static String message(Runnable refused) {
        return assertThrows(ModelRefused.class, refused::run).getMessage();
    }

    /// A file with this header, in which single quotes stand for double quotes, and this many bytes of data.
    private static byte[] file(String header, int dataBytes) {
        byte[] json = header.strip().replace('\'', '"').getBytes(StandardCharsets.UTF_8);
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.writeBytes(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(json.length).array());
        out.writeBytes(json);
        out.writeBytes(new byte[dataBytes]);
        return out.toByteArray();
    }
}
