package bios.command;

import bios.bench.AotCache;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/// `bios aot-cache`: writes Java's ahead-of-time cache, which the launcher uses.
@Command(name = "aot-cache", mixinStandardHelpOptions = true, description =
        "Write Java's ahead-of-time cache of this installation, with which processes start in half the time. "
        + "The launcher does it after a build.")
public final class AotCacheCommand implements Callable<Integer> {
    @Parameters(index = "0", arity = "0..1", paramLabel = "FILE",
            description = "Where to; by default beside bios.jar, where the launcher looks.")
    private Optional<Path> file;

    @Override public Integer call() throws IOException {
        new AotCache(file.orElseGet(() -> Installation.root().resolve("deploy/target/bios.aot"))).write();
        return 0;
    }
}
