package bios.protocol.run;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
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
public record RunConfig(RunId run, String owner, ModelName baseModel, LoraSpec lora, boolean loraChosen,
        Optional<String> parent, String userMetadata, String session, long createdAtMillis) {}
