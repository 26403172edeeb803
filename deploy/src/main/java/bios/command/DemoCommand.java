package bios.command;

import bios.CommandFailed;
import bios.persistence.process.TiedProcesses;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Unmatched;

/// `bios demo`: runs deploy/demo/demo.py, the whole workflow through the Python package.
@Command(name = "demo", description =
        "Train, kill the server, recover, resume, sample and download, in under three minutes.")
public final class DemoCommand implements Callable<Integer> {
    @Unmatched private List<String> arguments = new ArrayList<>();

    @Parameters(arity = "0..*", hidden = true) private List<String> rest = new ArrayList<>();

    @Override public Integer call() throws IOException, InterruptedException {
        Path script = Installation.root().resolve("deploy/demo/demo.py");
        if (!Files.exists(script)) throw new CommandFailed(script + " is missing");
        List<String> command = new ArrayList<>(List.of("python3", script.toString()));
        command.addAll(arguments);
        command.addAll(rest);
        try {
            return TiedProcesses.start(new ProcessBuilder(command).inheritIO()).waitFor();
        } catch (IOException failure) {
            throw new CommandFailed("python3 could not be started (" + failure.getMessage()
                    + "); install Python 3.9 or newer");
        }
    }
}
