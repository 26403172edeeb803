package bios.cluster;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/// The commands and environments of other processes (Linux). The commands of a [ProcessHandle] are cut off
/// after a page.
final class ProcessCommand {
    private ProcessCommand() {}

    /// The command with its arguments, however long it is; empty if the process has ended.
    static String of(ProcessHandle process) {
        return read(process, "cmdline");
    }

    /// The variables of its environment; empty if it has ended.
    static String environment(ProcessHandle process) {
        return read(process, "environ");
    }

    private static String read(ProcessHandle process, String file) {
        try {
            return Files.readString(Path.of("/proc", "" + process.pid(), file)).replace('\0', ' ');
        } catch (IOException _) {
            return "";
        }
    }
}
