package bios.cluster;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/// The commands of other processes (Linux). Those of a [ProcessHandle] are cut off after a page.
final class ProcessCommand {
    private ProcessCommand() {}

    /// The command with its arguments, however long it is; empty if the process has ended.
    static String of(ProcessHandle process) {
        try {
            return Files.readString(Path.of("/proc", "" + process.pid(), "cmdline")).replace('\0', ' ');
        } catch (IOException _) {
            return "";
        }
    }
}
