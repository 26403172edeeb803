package bios.command;

import java.nio.file.Files;
import java.nio.file.Path;

/// Where this program lies on the disk.
public final class Installation {
    private Installation() {}

    /// The folder with the launcher: `BIOS_ROOT`, which the launcher sets, else the nearest
    /// one above that has `mvnw`.
    public static Path root() {
        String said = System.getenv("BIOS_ROOT");
        if (said != null && !said.isEmpty()) return Path.of(said);
        Path folder = Path.of("").toAbsolutePath();
        while (folder.getParent() != null && !Files.exists(folder.resolve("mvnw")))
            folder = folder.getParent();
        return folder;
    }

    /// The base model that is shipped with Bios.
    public static Path tinyModel() {
        return root().resolve("deploy/models/bios-tiny");
    }
}
