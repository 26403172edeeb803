package bios.worker.device.cuda;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Compiles the kernels of this package for a card; images are kept in a folder, by what they are made of.
final class KernelCompiler {
    private static final List<String> SOURCES = List.of("rows", "optimizer", "loss", "products", "attention",
            "attention_mma", "sampling", "few_rows");
    /// Sources for cards with products of warpgroups, which also have clusters.
    private static final List<String> WARPGROUP_SOURCES = List.of("attention_wgmma", "few_rows_clusters");
    private static final List<String> HEADERS = List.of("common.cuh", "ptx.cuh", "tiles.cuh", "spans.cuh",
            "softmax.cuh", "wgmma.cuh", "few_rows.cuh", "clusters.cuh");
    private static final Logger log = LoggerFactory.getLogger(KernelCompiler.class);

    private final Nvrtc nvrtc;
    private final CudaCard card;
    private final Path cache;
    private final List<String> options;
    private final Map<String, String> headers = new TreeMap<>();

    KernelCompiler(Nvrtc nvrtc, CudaCard card, Path cache) {
        this.nvrtc = nvrtc;
        this.card = card;
        this.cache = cache;
        options = List.of("--gpu-architecture=" + card.architecture(), "--std=c++17", "-default-device",
                "-lineinfo");
        for (String header : HEADERS) headers.put(header, text(header));
    }

    /// The sources for this card, each a module of its own.
    List<String> sources() {
        return card.warpgroups() ? allSources() : SOURCES;
    }

    /// The sources for all cards.
    static List<String> allSources() {
        return Stream.concat(SOURCES.stream(), WARPGROUP_SOURCES.stream()).toList();
    }

    private static String text(String name) {
        try (InputStream in = KernelCompiler.class.getResourceAsStream(name)) {
            if (in == null) throw new IllegalStateException("no resource " + name);
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /// The machine code of a source.
    ///
    /// @param cached whether it was compiled before, by this or another process
    record Image(byte[] code, boolean cached) {}

    /// The image of a source, compiled if it is not cached. Any thread.
    Image image(String source) {
        Path file = file(source);
        try {
            if (Files.exists(file)) return new Image(Files.readAllBytes(file), true);
        } catch (IOException e) {
            log.warn("cannot read the cached kernels {}: {}", file, e.toString());
        }
        return compile(source);
    }

    /// Compiles a source and caches the image.
    Image compile(String source) {
        byte[] image = nvrtc.compile(source + ".cu", text(source + ".cu"), headers, options);
        keep(file(source), image);
        return new Image(image, false);
    }

    /// Keeps bytes in a file of the folder.
    void keep(Path file, byte[] bytes) {
        try {
            Files.createDirectories(cache);
            Path part = Files.createTempFile(cache, file.getFileName().toString(), ".part");
            try {
                Files.write(part, bytes);
                Files.move(part, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
            } finally {
                Files.deleteIfExists(part);
            }
        } catch (IOException e) {
            log.warn("cannot keep {}, which is made again at every start: {}", file, e.toString());
        }
    }

    private Path file(String source) {
        return file(source, List.of(source), "", "cubin");
    }

    /// The folder of what is kept.
    Path cache() {
        return cache;
    }

    /// A file that is another one for other texts of these sources, compilers, options and cards, and for
    /// another `more`.
    Path file(String name, List<String> sources, String more, String ending) {
        try {
            var digest = MessageDigest.getInstance("SHA-256");
            update(digest, nvrtc.version());
            update(digest, card.name());
            update(digest, String.join(" ", options));
            headers.forEach((header, text) -> {
                update(digest, header);
                update(digest, text);
            });
            for (String source : sources) update(digest, text(source + ".cu"));
            if (!more.isEmpty()) update(digest, more);
            String key = HexFormat.of().formatHex(digest.digest(), 0, 16);
            return cache.resolve(name + "-" + card.architecture() + "-" + key + "." + ending);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every JDK has SHA-256", e);
        }
    }

    private static void update(MessageDigest digest, String text) {
        digest.update(text.getBytes(StandardCharsets.UTF_8));
        digest.update((byte) 0);
    }
}
