package bios.protocol.run;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.Optional;

/// The configuration with which a run is created.
///
/// @param owner the account that owns it
/// @param loraChosen whether the user gave the rank; if not, the first load may bring the
///     checkpoint's adapter shape
/// @param parent the checkpoint path that it was created from
/// @param userMetadata the user's own JSON object, `{}` when none was given
/// @param session the session that created it
/// @param createdAtMillis epoch milliseconds
/// @param fingerprint of the base model that the run trains on, see [bios.protocol.model.ModelInfo]; empty
///     in runs of builds without fingerprints
/// @param project the project that it belongs to, by its owner's name for it
public record RunConfig(RunId run, String owner, ModelName baseModel, LoraSpec lora, boolean loraChosen,
        Optional<String> parent, String userMetadata, String session, long createdAtMillis,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<String> fingerprint,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<String> project) {
    public RunConfig {
        if (fingerprint == null) fingerprint = Optional.empty();
        if (project == null) project = Optional.empty(); // absent in earlier builds
    }

    /// A run without a project.
    public RunConfig(RunId run, String owner, ModelName baseModel, LoraSpec lora, boolean loraChosen,
            Optional<String> parent, String userMetadata, String session, long createdAtMillis,
            Optional<String> fingerprint) {
        this(run, owner, baseModel, lora, loraChosen, parent, userMetadata, session, createdAtMillis,
                fingerprint, Optional.empty());
    }

    /// A run without a fingerprint.
    public RunConfig(RunId run, String owner, ModelName baseModel, LoraSpec lora, boolean loraChosen,
            Optional<String> parent, String userMetadata, String session, long createdAtMillis) {
        this(run, owner, baseModel, lora, loraChosen, parent, userMetadata, session, createdAtMillis,
                Optional.empty());
    }

    /// The same run in a project, or in none.
    public RunConfig in(Optional<String> now) {
        return new RunConfig(run, owner, baseModel, lora, loraChosen, parent, userMetadata, session,
                createdAtMillis, fingerprint, now);
    }

    /// The same run without its parent and its project.
    public RunConfig withoutOrigin() {
        return new RunConfig(run, owner, baseModel, lora, loraChosen, Optional.empty(), userMetadata, session,
                createdAtMillis, fingerprint);
    }

    /// Whether this describes the same run, whenever, on whichever weights and in whichever project it was
    /// created.
    public boolean sameAs(RunConfig other) {
        return new RunConfig(run, owner, baseModel, lora, loraChosen, parent, userMetadata, session,
                other.createdAtMillis, other.fingerprint, other.project).equals(other);
    }
}
