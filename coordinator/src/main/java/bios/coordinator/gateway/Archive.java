package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.AdamParams;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;
import java.util.zip.Deflater;
import org.apache.commons.compress.archivers.tar.TarArchiveEntry;
import org.apache.commons.compress.archivers.tar.TarArchiveOutputStream;
import org.apache.commons.compress.archivers.tar.TarConstants;
import org.apache.commons.compress.compressors.gzip.GzipCompressorOutputStream;
import org.apache.commons.compress.compressors.gzip.GzipParameters;

/// A checkpoint's adapter as a `.tar.gz` that PEFT loads. It contains no time and no host name, so the bytes
/// are the same each time. It never contains optimizer state.
///
/// @param members content by name, in the order of the archive
record Archive(Map<String, Member> members) {
    /// A file of the archive.
    ///
    /// @param open gives exactly `bytes` bytes
    record Member(long bytes, Supplier<InputStream> open) {
        static Member of(byte[] content) {
            return new Member(content.length, () -> new ByteArrayInputStream(content));
        }
    }

    /// The format of Bios: the folders `adapter` and `tokenizer`, and `metadata.json`.
    static Archive inBiosFormat(CheckpointManifest manifest, Member adapter,
            Map<String, byte[]> tokenizer) {
        var members = new LinkedHashMap<String, Member>();
        members.put("adapter/adapter_config.json",
                Member.of(JsonWriter.writePretty(adapterConfig(manifest))));
        members.put("adapter/adapter_model.safetensors", adapter);
        members.put("metadata.json", Member.of(JsonWriter.writePretty(metadata(manifest))));
        new TreeMap<>(tokenizer).forEach((name, content) -> {
            if (!name.matches("[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"))
                throw new IllegalArgumentException("a tokenizer has a file called '" + name + "'");
            members.put("tokenizer/" + name, Member.of(content));
        });
        return new Archive(members);
    }

    /// The format of Tinker: the adapter's files at the root, with Tinker's names, and an empty file
    /// `checkpoint_complete`.
    static Archive inTinkerFormat(CheckpointManifest manifest, Member adapter) {
        var members = new LinkedHashMap<String, Member>();
        members.put("adapter_config.json",
                Member.of(JsonWriter.writePretty(adapterConfig(manifest))));
        members.put("adapter_model.safetensors", TinkerAdapter.of(adapter));
        members.put("checkpoint_complete", Member.of(new byte[0]));
        return new Archive(members);
    }

    /// The files of an adapter as PEFT has them in a folder.
    static Archive peftFiles(CheckpointManifest manifest, Member adapter) {
        var members = new LinkedHashMap<String, Member>();
        members.put(Uploads.CONFIG, Member.of(JsonWriter.writePretty(adapterConfig(manifest))));
        members.put(Uploads.WEIGHTS, adapter);
        return new Archive(members);
    }

    /// The keys of PEFT's LoraConfig. The base model has the name that it is served by: where its files are
    /// on this machine helps no one else.
    private static Map<String, Object> adapterConfig(CheckpointManifest manifest) {
        double alpha = manifest.lora().alpha();
        Object exact = alpha == Math.rint(alpha) && alpha < 1e9 ? (Object) (long) alpha : (Object) alpha;
        return new TreeMap<>(ApiResponse.object("base_model_name_or_path",
                manifest.baseModel().value(), "bias", "none",
                "fan_in_fan_out", false, "inference_mode", true, "init_lora_weights", true,
                "lora_alpha", exact, "lora_dropout", 0.0, "peft_type", "LORA", "r", manifest.lora().rank(),
                "target_modules", ResponseBodies.sorted(ResponseBodies.targets(manifest.lora())),
                "task_type", "CAUSAL_LM", "use_dora", false, "use_rslora", false));
    }

    private static Map<String, Object> metadata(CheckpointManifest manifest) {
        AdamParams adam = manifest.settings();
        return ApiResponse.object("format_version", 1, "path", manifest.path().map(CheckpointPath::biosUri),
                "kind", manifest.kind().name().toLowerCase(Locale.ROOT),
                "base_model", ApiResponse.object("logical", manifest.baseModel().value(), "reference",
                manifest.baseModel().value()),
                "lora", ApiResponse.object("rank", manifest.lora().rank(), "alpha", manifest.lora().alpha(),
                        "targets", ResponseBodies.sorted(ResponseBodies.targets(manifest.lora()))),
                "step", manifest.step(), "created_at", ResponseBodies.time(manifest.createdAtMillis()),
                "parent_path", manifest.parent(),
                "hyperparameters", ApiResponse.object("optimizer", manifest.optimizerType(),
                        "learning_rate", adam.learningRate(), "beta1", adam.beta1(), "beta2", adam.beta2(),
                        "eps", adam.eps(), "weight_decay", adam.weightDecay(),
                        "grad_clip_norm", adam.gradClipNorm(), "seed", manifest.lora().seed()),
                "user_metadata", JsonWriter.tree(manifest.userMetadata()));
    }

    /// Writes the archive; `out` stays open.
    void writeTo(OutputStream out) throws IOException {
        var gzip = new GzipParameters();
        gzip.setCompressionLevel(Deflater.BEST_SPEED);
        gzip.setModificationTime(0);
        gzip.setOperatingSystem(255);
        var compressed = new GzipCompressorOutputStream(out, gzip);
        var tar = new TarArchiveOutputStream(compressed, "UTF-8");
        tar.setBigNumberMode(TarArchiveOutputStream.BIGNUMBER_POSIX);
        tar.setLongFileMode(TarArchiveOutputStream.LONGFILE_POSIX);
        for (Map.Entry<String, Member> member : members.entrySet())
            write(tar, member.getKey(), member.getValue());
        tar.finish();
        compressed.finish();
    }

    private static void write(TarArchiveOutputStream tar, String name, Member member) throws IOException {
        var entry = new TarArchiveEntry(name, TarConstants.LF_NORMAL);
        entry.setSize(member.bytes());
        entry.setMode(0644);
        entry.setModTime(0);
        entry.setIds(0, 0);
        entry.setNames("", "");
        tar.putArchiveEntry(entry);
        try (InputStream in = member.open().get()) {
            in.transferTo(tar);
        }
        tar.closeArchiveEntry();
    }

    /// Names of the members, in order.
    List<String> names() {
        return List.copyOf(members.keySet());
    }
}
