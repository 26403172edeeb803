package bios.worker.load;

import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.DeserializationFeature;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;

/// The tensors of one safetensors file, or of the shards that an index names, mapped into memory.
///
/// [SafetensorsHeader] describes the format. The whole header is checked before any data is used; for a
/// damaged file [ModelRefused] contains its name.
public final class Safetensors implements AutoCloseable {
    private static final String REMEDY = SafetensorsHeader.REMEDY;
    private static final ValueLayout.OfLong LONG =
            ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfFloat FLOAT =
            ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfShort SHORT =
            ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    static final JsonMapper JSON = JsonMapper.builder().enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS).build();

    private final Arena arena;
    private final String where;
    private final SortedMap<String, Entry> entries;
    private final SortedMap<String, String> metadata;
    private final SortedMap<String, Place> places;
    private final Map<String, MemorySegment> copies = new ConcurrentHashMap<>();
    /// As the files were when they were opened, or when [#acceptChanges] was called.
    private volatile List<FileIdentity> identities = List.of();

    /// Where the bytes of a tensor are.
    record Place(Path file, long at, long bytes) {}

    /// One tensor.
    ///
    /// @param dtype as the header spells it, e.g. `BF16`
    /// @param memory its bytes, row-major, little-endian
    public record Entry(String name, String dtype, List<Long> shape, MemorySegment memory) {
        /// Number of elements.
        public long elements() {
            long n = 1;
            for (long extent : shape) n *= extent;
            return n;
        }
    }

    private Safetensors(Arena arena, String where) {
        this.arena = arena;
        this.where = where;
        this.entries = new TreeMap<>();
        this.metadata = new TreeMap<>();
        this.places = new TreeMap<>();
    }

    /// Maps the file, or the folder's `model.safetensors` or the shards of its
    /// `model.safetensors.index.json`.
    public static Safetensors open(Path path) {
        Safetensors all = new Safetensors(Arena.ofShared(), path.toString());
        try {
            if (!Files.isDirectory(path)) all.map(path);
            else if (Files.exists(path.resolve("model.safetensors")))
                all.map(path.resolve("model.safetensors"));
            else if (Files.exists(path.resolve("model.safetensors.index.json"))) all.mapShards(path);
            else throw new ModelRefused(path.toString(),
                    "holds neither model.safetensors nor model.safetensors.index.json",
                    "save the model with save_pretrained, which writes safetensors");
            return all;
        } catch (RuntimeException e) {
            all.close();
            throw e;
        }
    }

    /// Reads tensors from bytes in memory.
    ///
    /// @param where their name in messages
    public static Safetensors of(String where, byte[] bytes) {
        Safetensors all = new Safetensors(Arena.ofShared(), where);
        MemorySegment memory = all.arena.allocate(Math.max(1, bytes.length), 64).asSlice(0, bytes.length);
        MemorySegment.copy(bytes, 0, memory, ValueLayout.JAVA_BYTE, 0, bytes.length);
        try {
            all.read(where, Optional.empty(), memory);
            return all;
        } catch (RuntimeException e) {
            all.close();
            throw e;
        }
    }

    /// The file or folder, for messages.
    public String where() {
        return where;
    }

    /// Names of all tensors, sorted.
    public Set<String> names() {
        return Collections.unmodifiableSet(entries.keySet());
    }

    /// The `__metadata__` of the header, sorted.
    public SortedMap<String, String> metadata() {
        return Collections.unmodifiableSortedMap(metadata);
    }

    /// The mapped files, as they were when they were opened.
    public List<FileIdentity> identities() {
        return identities;
    }

    /// What has happened to a mapped file since it was opened; empty: nothing.
    public Optional<String> change() {
        return identities.stream().map(FileIdentity::change).flatMap(Optional::stream).findFirst();
    }

    /// The files are known to have the content again that they had when they were opened.
    public void acceptChanges() {
        identities = identities.stream().map(FileIdentity::path).map(FileIdentity::opened).toList();
    }

    Place place(String name) {
        return places.get(name);
    }

    /// Refuses a tensor that is missing, has another shape or a type that the engine does not compute with.
    public void require(String name, long... shape) {
        Entry entry = entry(name);
        requireShape(entry, shape);
        dtype(entry);
    }

    /// The tensor of this name; [ModelRefused] if it is missing.
    public Entry entry(String name) {
        Entry entry = entries.get(name);
        if (entry == null) throw new ModelRefused(where, "tensor '" + name + "' is missing",
                "the files do not belong to this config.json, or a shard was left out");
        return entry;
    }

    /// The tensor as a frozen matrix; refused unless it is bf16, fp16 or fp32 of shape `[rows, columns]`.
    public FrozenMatrix matrix(String name, int rows, int columns) {
        Entry entry = entry(name);
        requireShape(entry, rows, columns);
        Place place = places.get(name);
        return new FrozenMatrix(aligned(entry), dtype(entry), rows, columns, () -> requireUnchanged(place));
    }

    private void requireUnchanged(Place place) {
        if (place == null) return;
        for (FileIdentity identity : identities)
            if (identity.path().equals(place.file())) identity.requireUnchanged();
    }

    /// The tensor's elements as floats, row-major; refused unless it is bf16, fp16 or fp32 of this shape.
    public float[] floats(String name, long... shape) {
        Entry entry = entry(name);
        requireShape(entry, shape);
        if (entry.elements() > Integer.MAX_VALUE - 16)
            throw new ModelRefused(where, "tensor '" + name + "' has " + entry.elements() + " elements",
                    "expected fewer than 2^31");
        float[] out = new float[(int) entry.elements()];
        MemorySegment memory = entry.memory();
        switch (dtype(entry)) {
            case F32 -> MemorySegment.copy(memory, FLOAT, 0, out, 0, out.length);
            case F16 -> {
                for (int i = 0; i < out.length; i++)
                    out[i] = Float.float16ToFloat(memory.getAtIndex(SHORT, i));
            }
            case BF16 -> {
                for (int i = 0; i < out.length; i++)
                    out[i] = Float.intBitsToFloat(memory.getAtIndex(SHORT, i) << 16);
            }
        }
        return out;
    }

    /// The tensor's element type, refused unless it is one that the engine computes with.
    public WeightType dtype(Entry entry) {
        return switch (entry.dtype()) {
            case "BF16" -> WeightType.BF16;
            case "F16" -> WeightType.F16;
            case "F32" -> WeightType.F32;
            default -> throw new ModelRefused(where, "tensor '" + entry.name() + "' has dtype "
                    + entry.dtype(), "expected BF16, F16 or F32; save the model in one of them");
        };
    }

    /// Unmaps the files; the segments of their tensors must not be used any more.
    @Override public void close() {
        arena.close();
    }

    private void requireShape(Entry entry, long... shape) {
        if (!entry.shape().equals(Arrays.stream(shape).boxed().toList()))
            throw new ModelRefused(where, "tensor '" + entry.name() + "' has shape " + entry.shape()
                    + ", expected " + Arrays.toString(shape), "the files do not belong to this config.json");
    }

    /// Kernels load whole elements; files written by old tools may begin their data at an odd byte. Such a
    /// tensor is copied once.
    private MemorySegment aligned(Entry entry) {
        MemorySegment memory = entry.memory();
        if (memory.address() % dtype(entry).bytes() == 0) return memory;
        return copies.computeIfAbsent(entry.name(),
                _ -> arena.allocate(memory.byteSize(), 64).copyFrom(memory));
    }

    private void mapShards(Path folder) {
        String index = "model.safetensors.index.json";
        JsonNode map = json(folder + "/" + index, folder.resolve(index)).path("weight_map");
        if (!map.isObject() || map.isEmpty())
            throw new ModelRefused(folder.toString(), index + " has no weight_map", REMEDY);
        TreeSet<String> shards = new TreeSet<>();
        map.properties().forEach(shard -> {
            if (!shard.getValue().isTextual())
                throw new ModelRefused(folder.toString(), index + " names no file for tensor '"
                        + shard.getKey() + "', but " + shard.getValue(), REMEDY);
            shards.add(shard.getValue().textValue());
        });
        for (String shard : shards) {
            if (shard.contains("/") || shard.contains("\\") || shard.startsWith("."))
                throw new ModelRefused(folder.toString(),
                        index + " names the file '" + shard + "' outside the folder", REMEDY);
            map(folder.resolve(shard));
        }
        map.fieldNames().forEachRemaining(name -> {
            if (!entries.containsKey(name))
                throw new ModelRefused(folder.toString(),
                        "tensor '" + name + "' is in " + index + " but in none of its files", REMEDY);
        });
    }

    private void map(Path file) {
        if (!Files.isRegularFile(file))
            throw new ModelRefused(file.toString(), "is missing", "download the whole model again");
        try (FileChannel channel = FileChannel.open(file)) {
            List<FileIdentity> all = new ArrayList<>(identities);
            all.add(FileIdentity.of(file));
            identities = List.copyOf(all);
            read(file.toString(), Optional.of(file),
                    channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena));
        } catch (IOException e) {
            throw new UncheckedIOException(file.toString(), e);
        }
    }

    private void read(String file, Optional<Path> path, MemorySegment memory) {
        DownloadCheck.requireTensors(file, memory.asSlice(0, Math.min(DownloadCheck.HEAD, memory.byteSize()))
                .toArray(ValueLayout.JAVA_BYTE));
        if (memory.byteSize() < 8)
            throw new ModelRefused(file, "has " + memory.byteSize() + " bytes and no header", REMEDY);
        long length = memory.get(LONG, 0);
        SafetensorsHeader.requireLength(file, length, memory.byteSize());
        MemorySegment data = memory.asSlice(8 + length);
        var header = SafetensorsHeader.parse(file, memory.asSlice(8, length).toArray(ValueLayout.JAVA_BYTE),
                data.byteSize());
        metadata.putAll(header.metadata());
        for (var r : header.tensors()) {
            path.ifPresent(p -> places.put(r.name(), new Place(p, 8 + length + r.begin(), r.bytes())));
            if (entries.put(r.name(),
                    new Entry(r.name(), r.dtype(), r.shape(), data.asSlice(r.begin(), r.bytes()))) != null)
                throw new ModelRefused(file, "tensor '" + r.name() + "' is in two files", REMEDY);
        }
    }

    /// Reads a JSON object; [ModelRefused] if it is missing or malformed.
    static JsonNode json(String where, Path file) {
        try {
            DownloadCheck.requireJson(where, file);
            JsonNode node = JSON.readTree(Files.readAllBytes(file));
            if (!node.isObject())
                throw new ModelRefused(where, "is not a JSON object", "restore the original file");
            return node;
        } catch (JsonProcessingException e) {
            throw new ModelRefused(where, "is not JSON (" + brief(e) + ")", "restore the original file");
        } catch (IOException e) {
            throw new ModelRefused(where, "cannot be read (" + e + ")",
                    "expected a folder as save_pretrained writes it");
        }
    }

    static String brief(IOException e) {
        String message = e instanceof JsonProcessingException j
                ? j.getOriginalMessage() : String.valueOf(e.getMessage());
        byte[] bytes = message.lines().findFirst().orElse("").getBytes(StandardCharsets.UTF_8);
        return new String(bytes, 0, Math.min(bytes.length, 200), StandardCharsets.UTF_8);
    }
}
