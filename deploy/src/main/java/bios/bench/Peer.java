package bios.bench;

import bios.CommandFailed;
import bios.command.Installation;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.List;

/// The peer: `deploy/bench/peer_peft.py` (PyTorch + transformers + PEFT) in its own process.
///
/// @param python a Python with these packages
/// @param limit time limit of each run
public record Peer(String python, TimeLimit limit) {
    /// Throws if a package is missing; the message contains its name.
    public void requireReady() {
        Child child = Child.of(List.of(python, "-c", """
                import importlib.util as u
                print(" ".join(n for n in ("torch", "transformers", "peft") if u.find_spec(n) is None))"""));
        String missing = child.output("looking for the peer's packages", limit).strip();
        if (!missing.isEmpty())
            throw new CommandFailed("the peer cannot run: " + python + " has no " + missing.replace(" ", ", ")
                    + "; name a Python that has torch, transformers and peft with --peer");
    }

    /// Runs it on a model of this shape and returns its JSON line.
    ///
    /// @throws LeftOut if the run takes longer than the limit
    ObjectNode run(Shape shape, boolean bf16, int rank, List<String> arguments) {
        List<String> command = new ArrayList<>(List.of(python,
                Installation.root().resolve("deploy/bench/peer_peft.py").toString(),
                "--model", shape.name(), "--rank", "" + rank,
                "--dtype", bf16 ? "bfloat16" : "float32"));
        command.addAll(arguments);
        return lastLine(Child.of(command).output("peer " + (bf16 ? "bf16" : "fp32"), limit), command);
    }

    /// The JSON of an output's last line.
    static ObjectNode lastLine(String output, List<String> command) {
        try {
            String text = output.strip();
            return Report.JSON.readValue(text.substring(text.lastIndexOf('\n') + 1), ObjectNode.class);
        } catch (JsonProcessingException _) {
            throw new CommandFailed("no JSON line in the output of: " + String.join(" ", command));
        }
    }
}
