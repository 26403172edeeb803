package bios.command;

import bios.CommandFailed;
import bios.persistence.embedded.DatabaseInUse;
import bios.repair.DataCheck;
import bios.repair.EntityCheck;
import bios.repair.UnknownRun;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios fsck`: checks the data folder of `bios up` while no server uses it. Exit status 1: damage.
@Command(name = "fsck", mixinStandardHelpOptions = true, description = {
    "Check a data folder: the journal against what was acknowledged, every event and snapshot, every blob.",
    "Nothing is changed. Exit status 0: all is well, 1: damage."})
public final class FsckCommand implements Callable<Integer> {
    @Mixin private DataFolder data;

    @Option(names = "--json", description = "Print JSON.")
    private boolean json;

    @Override public Integer call() {
        DataCheck check;
        try {
            check = DataCheck.of(data.folder(), data.hasBlobs());
        } catch (DatabaseInUse used) {
            throw new CommandFailed(used.getMessage());
        }
        System.out.println(json ? json(check) : text(check));
        return check.clean() ? 0 : 1;
    }

    private static String text(DataCheck check) {
        var lines = new ArrayList<String>();
        check.general().forEach(problem -> lines.add("✗ " + problem));
        for (EntityCheck entity : check.damaged()) {
            lines.add("✗ " + entity.name() + " would lose " + entity.loses());
            entity.problems().forEach(problem -> lines.add("    " + problem));
        }
        check.unknown().forEach(unknown -> lines.add("! not in the journal: " + unknown
                + "; 'bios restore --delete-unknown' deletes them"));
        long runs = check.entities().stream().filter(EntityCheck::run).count();
        lines.add((check.clean() ? "✓ " : "") + runs + " runs, " + check.entities().size()
                + " entities in all, " + check.damaged().size() + " with problems");
        return String.join("\n", lines);
    }

    private static String json(DataCheck check) {
        var mapper = new ObjectMapper();
        ObjectNode root = mapper.createObjectNode().put("clean", check.clean());
        strings(root.putArray("problems"), check.general());
        ArrayNode entities = root.putArray("entities");
        for (EntityCheck entity : check.entities()) {
            ObjectNode node = entities.addObject().put("name", entity.name()).put("run", entity.run())
                    .put("acknowledged", entity.acknowledged()).put("good", entity.good())
                    .put("loses", entity.loses());
            entity.operations().ifPresent(count -> node.put("operations", count));
            strings(node.putArray("problems"), entity.problems());
        }
        ArrayNode unknown = root.putArray("unknown_runs");
        for (UnknownRun run : check.unknown())
            unknown.addObject().put("run", run.run().value()).put("blobs", run.blobs().size())
                    .put("bytes", run.bytes()).put("folder", run.folder().toString());
        return root.toString();
    }

    private static void strings(ArrayNode into, List<String> texts) {
        texts.forEach(into::add);
    }
}
