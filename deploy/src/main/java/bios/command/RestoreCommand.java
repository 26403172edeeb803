package bios.command;

import bios.CommandFailed;
import bios.persistence.embedded.DatabaseInUse;
import bios.repair.DataRepair;
import bios.repair.EntityCheck;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios restore`: puts damaged runs back to their newest states that can be verified, while no server uses
/// the data folder.
@Command(name = "restore", mixinStandardHelpOptions = true, description = {
    "Put damaged runs back to their newest states that can be verified: snapshot, events and blobs.",
    "What is removed stays in a copy of the journal beside it; the histories of the runs say what was given"
    + " up."})
public final class RestoreCommand implements Callable<Integer> {
    @Mixin private DataFolder data;

    @Option(names = "--run", paramLabel = "RUN", description = "Only this run (default: all damaged ones).")
    private String run;

    @Option(names = "--delete-unknown", description = "Restore nothing; delete the blobs of runs of which the"
            + " journal has nothing any more, as bios fsck names them.")
    private boolean deleteUnknown;

    @Override public Integer call() {
        try {
            var repair = new DataRepair(data.folder(), data.hasBlobs(), InstantSource.system(),
                    System.out::println);
            if (deleteUnknown) {
                int deleted = repair.deleteUnknown(Optional.ofNullable(run)).size();
                System.out.println("the blobs of " + deleted + " runs were deleted");
                return 0;
            }
            List<EntityCheck> restored = repair.restore(Optional.ofNullable(run));
            System.out.println(restored.isEmpty() ? "nothing was damaged"
                    : restored.size() + " entities were put back");
            return 0;
        } catch (DatabaseInUse used) {
            throw new CommandFailed(used.getMessage());
        }
    }
}
