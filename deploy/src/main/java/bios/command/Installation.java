package bios.command;

import java.nio.file.Files;
import java.nio.file.Path;

/// The installation folder of this program.
public final class Installation {
    private Installation() {}

    /// The folder of the launcher: `BIOS_ROOT`, which the launcher sets, else the nearest parent folder with
    /// `mvnw`.
    public static Path root() {
        String given = System.getenv("BIOS_ROOT");
        if (given != null && !given.isEmpty()) return Path.of(given);
        Path folder = Path.of("").toAbsolutePath();
        while (folder.getParent() != null && !Files.exists(folder.resolve("mvnw")))
            folder = folder.getParent();
        return folder;
    }

    /// The base model that comes with Bios.
    public static Path tinyModel() {
        return root().resolve("deploy/models/bios-tiny");
    }
}
