package bios.worker.load;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.worker.model.Golden;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A fingerprint depends on what a model computes, and on nothing else.
class FingerprintTest {
    @TempDir Path folder;
    private Path model;

    @BeforeEach void copy() throws IOException {
        model = Files.createDirectories(folder.resolve("model"));
        Path original = Golden.of("qwen3").folder().resolve("model");
        for (String file : new String[] {"config.json", "model.safetensors"})
            Files.copy(original.resolve(file), model.resolve(file));
    }

    private static Fingerprint of(Path folder, FingerprintCache cache) {
        ModelFolder model = ModelFolder.open(folder);
        try (Safetensors files = model.tensors()) {
            return Fingerprint.of(model.spec(), files, cache);
        }
    }

    private static Fingerprint of(Path folder) {
        return of(folder, FingerprintCache.NONE);
    }

    private void flip(long at) throws IOException {
        byte[] bytes = Files.readAllBytes(model.resolve("model.safetensors"));
        bytes[(int) at] ^= 1;
        Files.write(model.resolve("model.safetensors"), bytes);
    }

    @Test void everyByteOfTheWeightsCounts() throws IOException {
        Fingerprint before = of(model);
        assertEquals(before, of(model));
        long size = Files.size(model.resolve("model.safetensors"));
        flip(size - 1);
        Fingerprint after = of(model);
        assertEquals(before.configuration(), after.configuration());
        assertNotEquals(before.weights(), after.weights());
        assertEquals(Optional.of("its weights differ"), after.difference(before.toString()));
        flip(size - 1);
        assertEquals(Optional.empty(), of(model).difference(before.toString()));
    }

    @Test void theCutIntoFilesDoesNotCount() throws IOException {
        Path sharded = Golden.of("qwen3-sharded").folder().resolve("model");
        Path whole = Files.createDirectories(folder.resolve("whole"));
        Files.copy(sharded.resolve("config.json"), whole.resolve("config.json"));
        try (Safetensors files = Safetensors.open(sharded)) {
            var all = new TreeMap<String, TestTensors.Values>();
            for (String name : files.names()) {
                long[] shape = files.entry(name).shape().stream().mapToLong(Long::longValue).toArray();
                all.put(name, new TestTensors.Values(files.floats(name, shape), 0,
                        files.entry(name).shape().stream().map(Math::toIntExact).toList()));
            }
            Files.write(whole.resolve("model.safetensors"), TestTensors.bytes(all, Map.of()));
        }
        assertEquals(of(sharded), of(whole));
    }

    @Test void theConfigurationCountsAsFarAsItIsComputedWith() throws IOException {
        Fingerprint before = of(model);
        String config = Files.readString(model.resolve("config.json"));
        Files.writeString(model.resolve("config.json"),
                config.replaceFirst("\\{", "{\"pretraining_tp\": 1, \"_name_or_path\": \"x\","));
        assertEquals(before, of(model));
        Files.writeString(model.resolve("config.json"),
                config.replaceFirst("\"rope_theta\": [0-9.]+", "\"rope_theta\": 5000.0"));
        assertNotEquals(config, Files.readString(model.resolve("config.json")));
        assertEquals(Optional.of("its config.json differs in what is computed"),
                of(model).difference(before.toString()));
    }

    @Test void filesOfKnownIdentityAreNotReadAgain() throws IOException {
        Path file = folder.resolve("data/base-models.json");
        var cache = new FingerprintCache(Optional.of(file));
        Fingerprint first = of(model, cache);
        assertTrue(Files.readString(file).contains(first.weights()));
        Files.writeString(file, Files.readString(file).replace(first.weights(), "0".repeat(32)));
        assertEquals("0".repeat(32), of(model, cache).weights());
        FileTime time = Files.getLastModifiedTime(model.resolve("model.safetensors"));
        Files.setLastModifiedTime(model.resolve("model.safetensors"),
                FileTime.fromMillis(time.toMillis() + 1000));
        assertEquals(first, of(model, cache));
        Files.writeString(file, "{ damaged");
        assertEquals(first, of(model, cache));
    }

    /// As `rsync --inplace --times` leaves a file, and `touch --reference`.
    @Test void aFileThatIsOverwrittenInPlaceWithSizeAndTimeOfTheOldOneIsAnother() throws IOException {
        Path file = model.resolve("model.safetensors");
        var cache = new FingerprintCache(Optional.of(folder.resolve("data/base-models.json")));
        Fingerprint first = of(model, cache);
        FileIdentity identity = FileIdentity.of(file);
        FileTime time = Files.getLastModifiedTime(file);
        Object changed = Files.getAttribute(file, "unix:ctime");
        flip(Files.size(file) - 1);
        do Files.setLastModifiedTime(file, time); // the clock of files has ticks of milliseconds
        while (Files.getAttribute(file, "unix:ctime").equals(changed));
        assertEquals(time, Files.getLastModifiedTime(file));
        assertTrue(identity.change().orElseThrow().contains("was written to"));
        assertNotEquals(first, of(model, cache));
    }

    @Test void anIdentityTellsWhatHasHappenedToAFile() {
        try {
            Path file = Files.writeString(folder.resolve("f"), "abc");
            FileIdentity identity = FileIdentity.of(file);
            assertEquals(Optional.empty(), identity.change());
            Files.writeString(file, "ab");
            assertTrue(identity.change().orElseThrow().contains("has 2 bytes, and had 3"));
            Files.delete(file);
            assertTrue(identity.change().orElseThrow().contains("is gone"));
            Path other = Files.writeString(folder.resolve("g"), "abc");
            Files.move(other, file);
            String replaced = identity.change().orElseThrow();
            assertFalse(replaced.contains("bytes"), replaced);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
