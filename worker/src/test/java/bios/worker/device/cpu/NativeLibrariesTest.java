package bios.worker.device.cpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class NativeLibrariesTest {
    private static final String GOMP = "/org/bytedeco/dnnl/linux-x86_64/libgomp.so.1";

    @Test void aLibraryIsUnpackedOnceAndRepairedIfCutShort(@TempDir Path cache) throws IOException {
        var file = NativeLibraries.unpack(cache, GOMP);
        var written = Files.getLastModifiedTime(file);
        long size = Files.size(file);
        assertEquals(file, NativeLibraries.unpack(cache, GOMP));
        assertEquals(written, Files.getLastModifiedTime(file));
        Files.write(file, new byte[10]);
        NativeLibraries.unpack(cache, GOMP);
        assertEquals(size, Files.size(file));
        try (var left = Files.list(cache)) {
            assertEquals(1, left.count());
        }
    }

    @Test void aMissingResourceGivesNoLibrary(@TempDir Path cache) {
        assertNull(NativeLibraries.unpack(cache, "/no/such/library.so"));
    }
}
