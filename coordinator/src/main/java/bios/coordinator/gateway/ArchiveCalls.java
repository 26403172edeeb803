package bios.coordinator.gateway;

import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobMissing;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;

/// Downloads of checkpoints: straight, or by a signed URL without a key.
final class ArchiveCalls {
    private final Backend backend;
    private final Operations operations;
    private final SignedUrls urls;
    private final Executor blocking;

    ArchiveCalls(Backend backend, Operations operations, SignedUrls urls, Executor blocking) {
        this.backend = backend;
        this.operations = operations;
        this.urls = urls;
        this.blocking = blocking;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("training_runs/*/checkpoints/*/*/archive", this::archive),
                Endpoint.get("archives/*/*/*", this::signed).open());
    }

    private CompletionStage<Reply> archive(Call call) {
        var named = ListingCalls.Named.of(call.parts());
        return operations.resolve(call.account(), path(named)).thenCompose(manifest -> {
            if (!call.accepts("application/gzip")) return CompletableFuture.completedStage(link(call, named));
            ModelInfo model = backend.model(At.BODY, manifest.baseModel().value(), true);
            return tokenizer(model).thenCompose(files -> stream(named, manifest,
                    adapter -> Archive.bios(manifest, model.reference(), adapter, files)));
        });
    }

    /// The tokenizer's files; none for a base model that came without, whose adapter is worth downloading all
    /// the same.
    private CompletionStage<Map<String, byte[]>> tokenizer(ModelInfo model) {
        return backend.engine(model.name(), EngineReply.TokenizerFiles.class,
                replyTo -> new EngineCommand.FetchTokenizerFiles(model.name(), replyTo))
                .thenApply(EngineReply.TokenizerFiles::files)
                .exceptionallyCompose(failed -> Backend.cause(failed) instanceof Refusal refusal
                        && refusal.word().equals("no_tokenizer")
                        ? CompletableFuture.completedStage(Map.of()) : CompletableFuture.failedStage(failed));
    }

    private static CheckpointPath path(ListingCalls.Named named) {
        return new CheckpointPath(named.run(), Optional.of(named.kind()), named.name());
    }

    private static String what(ListingCalls.Named named) {
        return named.run() + "/" + named.kind().segment() + "/" + named.name();
    }

    private Reply link(Call call, ListingCalls.Named named) {
        long expires = backend.clock().millis() + backend.settings().archiveUrlAge().toMillis();
        String root = backend.settings().publicUrl()
                .orElseGet(() -> "http://" + call.headers().getOrDefault("host", "localhost"));
        return Reply.ok("url", root.replaceAll("/+$", "") + "/api/v1/archives/" + what(named) + "?token="
                + urls.sign(what(named), call.account(), expires), "expires", Answers.time(expires));
    }

    private CompletionStage<Reply> signed(Call call) {
        var named = ListingCalls.Named.of(call.parts());
        String account = urls.account(what(named), call.query().getOrDefault("token", ""),
                backend.clock().millis()).orElseThrow(() -> new Refusal(Code.LINK_EXPIRED,
                        "the link is not valid or no longer so; ask for a new one"));
        return operations.resolve(account, path(named)).thenCompose(manifest -> stream(named, manifest,
                adapter -> Archive.tinker(manifest, backend.fleet().model(manifest.baseModel())
                        .map(ModelInfo::reference).orElse(manifest.baseModel().value()), adapter)));
    }

    private interface Layout {
        Archive of(Archive.Member adapter);
    }

    /// The blob is read to its end before the answer begins: one that is missing or damaged is a problem, not
    /// half an archive.
    private CompletionStage<Reply> stream(ListingCalls.Named named, CheckpointManifest manifest,
            Layout layout) {
        return backend.blocking(() -> {
            check(manifest.adapter());
            Archive archive = layout.of(new Archive.Member(manifest.adapter().bytes(),
                    () -> backend.blobs().open(manifest.adapter())));
            return new Reply.Stream("application/gzip", named.run() + "-" + named.name() + ".tar.gz",
                    ByteFeed.of(blocking, archive::writeTo));
        });
    }

    private void check(BlobRef blob) {
        try (InputStream whole = backend.blobs().open(blob)) {
            whole.transferTo(OutputStream.nullOutputStream());
        } catch (BlobMissing missing) {
            throw new Refusal(Code.BLOB_MISSING, missing.getMessage());
        } catch (BlobDamaged damaged) {
            throw new Refusal(Code.BLOB_DAMAGED, damaged.getMessage());
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
