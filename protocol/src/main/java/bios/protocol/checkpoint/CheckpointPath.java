package bios.protocol.checkpoint;

import bios.protocol.Invalid;
import bios.protocol.run.RunId;
import java.util.Optional;

/// The path of a checkpoint: `bios://<run>/<name>` (a training state, or else the sampler weights of that
/// name), `bios://<run>/weights/<name>` or `bios://<run>/sampler_weights/<name>`; `tinker://` is accepted,
/// too.
///
/// @param kind empty in a two-part path
public record CheckpointPath(RunId run, Optional<CheckpointKind> kind, CheckpointName name) {
    /// Parses a path; throws [Invalid] with the field `path` and the expected form if the text is malformed.
    public static CheckpointPath parse(String text) {
        String rest = text == null ? null : text.startsWith("bios://") ? text.substring(7)
                : text.startsWith("tinker://") ? text.substring(9) : null;
        if (rest == null) throw malformed(text);
        String[] parts = rest.split("/", -1);
        try {
            return switch (parts.length) {
                case 2 -> new CheckpointPath(new RunId(parts[0]), Optional.empty(),
                        new CheckpointName(parts[1]));
                case 3 -> new CheckpointPath(new RunId(parts[0]), Optional.of(kind(parts[1], text)),
                        new CheckpointName(parts[2]));
                default -> throw malformed(text);
            };
        } catch (Invalid part) {
            throw part.field().equals("path")
                    ? part : new Invalid("path", "'" + text + "': " + part.getMessage());
        }
    }

    private static CheckpointKind kind(String segment, String text) {
        return CheckpointKind.of(segment).orElseThrow(() -> malformed(text));
    }

    private static Invalid malformed(String text) {
        return new Invalid("path", "'" + text + "' is not a checkpoint path; expected bios://<run>/<name>,"
                + " bios://<run>/weights/<name> or bios://<run>/sampler_weights/<name>");
    }

    /// The path in the `bios://` scheme: two parts for a training state, three parts for sampler weights.
    public String biosUri() {
        return kind.filter(k -> k == CheckpointKind.SAMPLER).isPresent()
                ? "bios://" + run + "/" + CheckpointKind.SAMPLER.segment() + "/" + name
                : "bios://" + run + "/" + name;
    }

    /// The path in the `tinker://` scheme, which always has three parts.
    public String tinkerUri() {
        return "tinker://" + run + "/" + kind.orElse(CheckpointKind.TRAINING).segment() + "/" + name;
    }

    @Override public String toString() {
        return biosUri();
    }
}
