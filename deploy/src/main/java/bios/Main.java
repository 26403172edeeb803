package bios;

import bios.command.AotCacheCommand;
import bios.command.AuditCommand;
import bios.command.BenchCommand;
import bios.command.CheckpointsCommand;
import bios.command.ClusterCommand;
import bios.command.DemoCommand;
import bios.command.DoctorCommand;
import bios.command.FsckCommand;
import bios.command.GpuCheckCommand;
import bios.command.KeysCommand;
import bios.command.ModelsCommand;
import bios.command.NodeCommand;
import bios.command.RestoreCommand;
import bios.command.RunsCommand;
import bios.command.SchemaCommand;
import bios.command.UpCommand;
import bios.command.UsageCommand;
import bios.protocol.Invalid;
import picocli.CommandLine;
import picocli.CommandLine.Command;

/// The program `bios`: reads the command line and runs one command.
@Command(name = "bios", mixinStandardHelpOptions = true, version = "bios 0.1.0",
        synopsisSubcommandLabel = "COMMAND",
        description = "Trains and samples LoRA adapters of open-weight language models.",
        footer = {"", "This is the server's launcher. The commands of users (login, export, sample, chat)",
            "come with the Python package: pip install ./protocol/python"},
        subcommands = {UpCommand.class, ClusterCommand.class, NodeCommand.class, DemoCommand.class,
                ModelsCommand.class, RunsCommand.class, CheckpointsCommand.class, SchemaCommand.class,
                UsageCommand.class, AuditCommand.class, KeysCommand.class, FsckCommand.class,
                RestoreCommand.class, BenchCommand.class, DoctorCommand.class, GpuCheckCommand.class,
                AotCacheCommand.class})
public final class Main implements Runnable {
    @CommandLine.Spec private CommandLine.Model.CommandSpec spec;

    /// Runs `bios` with these arguments and exits with 0 (success), 1 (failure), 2 (wrong usage) or 75 (the
    /// device of the engine is lost).
    public static void main(String[] arguments) {
        CommandLine line = new CommandLine(new Main());
        line.setCaseInsensitiveEnumValuesAllowed(true);
        line.setExecutionExceptionHandler((failure, command, _) -> {
            boolean ours = failure instanceof CommandFailed || failure instanceof Invalid;
            command.getErr()
                    .println("bios: " + (ours || failure.getMessage() == null ? message(failure) : failure));
            if (!ours && System.getenv("BIOS_TRACE") != null) failure.printStackTrace(command.getErr());
            return failure instanceof CommandFailed known ? known.status() : 1;
        });
        try {
            Logs.configure(System.getenv().getOrDefault("BIOS_LOG", ""));
        } catch (CommandFailed wrong) {
            System.err.println("bios: " + wrong.getMessage());
            System.exit(2);
        }
        System.exit(line.execute(arguments));
    }

    private static String message(Throwable failure) {
        return failure.getMessage() == null ? failure.toString() : failure.getMessage();
    }

    @Override public void run() {
        throw new CommandLine.ParameterException(spec.commandLine(), "A command is required.");
    }
}
