package bios.node;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.CommandFailed;
import bios.worker.load.ModelFolders;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.Optional;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// A wrong setting of any part is refused by its name before the process opens or waits for anything.
final class NodeSettingsTest {
    @TempDir Path folder;

    @ParameterizedTest @CsvSource({"bios.engine.device, gpu", "bios.engine.cpu.path, abacus",
        "bios.run.idle-after, soon", "bios.gateway.max-uploads, many", "bios.gateway.actors.port, door",
        "bios.sampling.result-age, long", "bios.session.ends-after, never"})
    void aWrongSettingIsRefusedBeforeAnythingIsOpened(String name, String value) {
        Path data = folder.resolve("data");
        var settings = new Node.Settings(Optional.empty(), EnumSet.allOf(Role.class), "127.0.0.1", 0, data,
                ModelFolders.NONE, Optional.empty(), Optional.empty(),
                ConfigFactory.parseString(name + " = " + value), Optional.empty());
        var refused = assertThrows(CommandFailed.class, () -> Node.start(settings));
        assertTrue(refused.getMessage().contains(name.substring(name.lastIndexOf('.') + 1)),
                refused::getMessage);
        assertFalse(Files.exists(data), "nothing was opened");
    }
}
