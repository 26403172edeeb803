package bios.persistence.blob;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import org.junit.jupiter.api.Test;

class S3SettingsTest {
    private static final int PART = 16 << 20;
    private static final S3Settings SETTINGS =
            new S3Settings("bucket", "", "", "", false, "", "", PART, Path.of("staging"));

    @Test void partsGrowWithAContentThatWouldNeedMoreThanS3Accepts() {
        assertEquals(PART, SETTINGS.partBytes(PART + 1L));
        assertEquals(PART, SETTINGS.partBytes(10_000L * PART));
        for (long bytes : new long[] {10_000L * PART + 1, 70L << 30, 1L << 40, 5L << 40}) {
            long part = SETTINGS.partBytes(bytes);
            assertTrue(part >= PART && Math.ceilDiv(bytes, part) <= 10_000, bytes + " in parts of " + part);
        }
    }
}
