package bios.worker.load;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.TreeSet;

/// The header of one safetensors file: 8 bytes of header length (little-endian), then this JSON, then the
/// data (https://github.com/huggingface/safetensors). All of it is checked before any data is used: names are
/// unique, shapes and ranges agree, and the ranges cover the data without gap or overlap.
///
/// @param metadata the `__metadata__`, sorted
/// @param tensors in the order of their data
record SafetensorsHeader(SortedMap<String, String> metadata, List<TensorRange> tensors) {
    static final int MAX_BYTES = 100_000_000;
    static final String REMEDY = "the file is damaged or cut off: copy or download it again";
    private static final Map<String, Integer> BYTES = Map.ofEntries(Map.entry("BOOL", 1), Map.entry("U8", 1),
            Map.entry("I8", 1), Map.entry("F8_E4M3", 1), Map.entry("F8_E5M2", 1), Map.entry("I16", 2),
            Map.entry("U16", 2), Map.entry("F16", 2), Map.entry("BF16", 2), Map.entry("I32", 4),
            Map.entry("U32", 4), Map.entry("F32", 4), Map.entry("F64", 8), Map.entry("I64", 8),
            Map.entry("U64", 8));

    /// Throws if a file of `fileBytes` bytes cannot have a header of this length.
    static void requireLength(String file, long length, long fileBytes) {
        if (length < 2 || length > MAX_BYTES || length > fileBytes - 8)
            throw new ModelRefused(file,
                    "has a header of " + length + " bytes in a file of " + fileBytes, REMEDY);
    }

    /// Parses and checks a header; [ModelRefused] contains the reason if it is invalid.
    ///
    /// @param file the file's name in messages
    /// @param dataBytes number of bytes after the header
    static SafetensorsHeader parse(String file, byte[] json, long dataBytes) {
        JsonNode header;
        try {
            header = Safetensors.JSON.readTree(json);
        } catch (IOException e) {
            throw new ModelRefused(file, "has a header that is not JSON (" + Safetensors.brief(e) + ")",
                    REMEDY);
        }
        if (!header.isObject())
            throw new ModelRefused(file, "has a header that is not a JSON object", REMEDY);
        SortedMap<String, String> metadata = new TreeMap<>();
        header.path("__metadata__").properties()
                .forEach(e -> metadata.put(e.getKey(), e.getValue().asText()));
        List<TensorRange> ranges = new ArrayList<>();
        header.properties().forEach(e -> {
            if (!e.getKey().equals("__metadata__"))
                ranges.add(range(file, e.getKey(), e.getValue(), dataBytes));
        });
        requireGapless(file, ranges, dataBytes);
        return new SafetensorsHeader(metadata, List.copyOf(ranges));
    }

    private static TensorRange range(String file, String name, JsonNode node, long dataBytes) {
        JsonNode shape = node.path("shape");
        JsonNode offsets = node.path("data_offsets");
        String dtype = node.path("dtype").asText();
        if (!BYTES.containsKey(dtype))
            throw new ModelRefused(file, "tensor '" + name + "' has the unknown dtype '" + dtype + "'",
                    "expected one of " + new TreeSet<>(BYTES.keySet()));
        if (!shape.isArray() || !offsets.isArray() || offsets.size() != 2)
            throw new ModelRefused(file, "tensor '" + name + "' has no shape or no data_offsets", REMEDY);
        List<Long> extents = new ArrayList<>();
        long bytes = BYTES.get(dtype);
        for (JsonNode extent : shape) {
            if (!extent.isIntegralNumber() || !extent.canConvertToLong() || extent.asLong() < 0)
                throw new ModelRefused(file, "tensor '" + name + "' has the shape " + shape, REMEDY);
            extents.add(extent.asLong());
            if (Math.multiplyHigh(bytes, extent.asLong()) != 0 || bytes * extent.asLong() < 0)
                throw new ModelRefused(file, "tensor '" + name + "' has the impossible shape " + shape,
                        REMEDY);
            bytes *= extent.asLong();
        }
        boolean whole = offsets.get(0).isIntegralNumber() && offsets.get(1).isIntegralNumber()
                && offsets.get(0).canConvertToLong() && offsets.get(1).canConvertToLong();
        long begin = whole ? offsets.get(0).asLong() : -1;
        long end = whole ? offsets.get(1).asLong() : -1;
        if (begin < 0 || begin > end || end > dataBytes)
            throw new ModelRefused(file,
                    "tensor '" + name + "' lies at " + offsets + " of " + dataBytes + " bytes", REMEDY);
        if (end - begin != bytes)
            throw new ModelRefused(file, "tensor '" + name + "' has " + (end - begin) + " bytes, but "
                    + dtype + " " + shape + " needs " + bytes, REMEDY);
        return new TensorRange(name, dtype, List.copyOf(extents), begin, end);
    }

    private static void requireGapless(String file, List<TensorRange> ranges, long dataBytes) {
        ranges.sort(Comparator.comparingLong(TensorRange::begin).thenComparingLong(TensorRange::end));
        long end = 0;
        for (TensorRange r : ranges) {
            if (r.begin() != end)
                throw new ModelRefused(file, "tensor '" + r.name() + "' begins at byte " + r.begin()
                        + ", where "
                        + (r.begin() < end ? "it overlaps the one before it" : "it leaves a gap after byte "
                                + end), REMEDY);
            end = r.end();
        }
        if (end != dataBytes)
            throw new ModelRefused(file, "has " + (dataBytes - end) + " bytes after its last tensor", REMEDY);
    }
}
