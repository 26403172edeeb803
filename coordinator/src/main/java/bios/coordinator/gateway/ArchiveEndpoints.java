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

/// Downloads of checkpoints: with a key, or through a signed URL.
final class ArchiveEndpoints {
    private final Upstream upstream;
    private final RunClient runs;
    private final SignedUrls urls;
    private final Executor blocking;

    ArchiveEndpoints(Upstream upstream, RunClient runs, SignedUrls urls, Executor blocking) {
        this.upstream = upstream;
        this.runs = runs;
        this.urls = urls;
        this.blocking = blocking;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("training_runs/*/checkpoints/*/*/archive", this::archive),
                Endpoint.get("archives/*/*/*", this::signed).withoutKey());
    }

    private CompletionStage<ApiResponse> archive(ApiRequest call) {
        var named = ListingEndpoints.CheckpointRef.of(call.parts());
        return runs.resolve(call.account(), path(named)).thenCompose(manifest -> {
            if (!call.accepts("application/gzip")) return CompletableFuture.completedStage(link(call, named));
            ModelInfo model = upstream.model(FieldPath.BODY, manifest.baseModel().value(), true);
            return tokenizer(model).thenCompose(files -> stream(named, manifest,
                    adapter -> Archive.bios(manifest, model.reference(), adapter, files)));
        });
    }

    /// The tokenizer's files; an empty map for a base model without a tokenizer.
    private CompletionStage<Map<String, byte[]>> tokenizer(ModelInfo model) {
        return upstream.engine(model.name(), EngineReply.TokenizerFiles.class,
                replyTo -> new EngineCommand.FetchTokenizerFiles(model.name(), replyTo))
                .thenApply(EngineReply.TokenizerFiles::files)
                .exceptionallyCompose(failed -> Upstream.cause(failed) instanceof Refusal refusal
                        && refusal.wireCode().equals("no_tokenizer")
                        ? CompletableFuture.completedStage(Map.of()) : CompletableFuture.failedStage(failed));
    }

    private static CheckpointPath path(ListingEndpoints.CheckpointRef named) {
        return new CheckpointPath(named.run(), Optional.of(named.kind()), named.name());
    }

    private static String what(ListingEndpoints.CheckpointRef named) {
        return named.run() + "/" + named.kind().segment() + "/" + named.name();
    }

    private ApiResponse link(ApiRequest call, ListingEndpoints.CheckpointRef named) {
        long expires = upstream.clock().millis() + upstream.settings().archiveUrlAge().toMillis();
        String root = upstream.settings().publicUrl()
                .orElseGet(() -> "http://" + call.headers().getOrDefault("host", "localhost"));
        return ApiResponse.ok("url", root.replaceAll("/+$", "") + "/api/v1/archives/" + what(named)
                + "?token="
                + urls.sign(what(named), call.account(), expires), "expires", ResponseBodies.time(expires));
    }

    private CompletionStage<ApiResponse> signed(ApiRequest call) {
        var named = ListingEndpoints.CheckpointRef.of(call.parts());
        String account = urls.account(what(named), call.query().getOrDefault("token", ""),
                upstream.clock().millis()).orElseThrow(() -> new Refusal(ErrorCode.LINK_EXPIRED,
                        "the link is invalid or has expired; ask for a new one"));
        return runs.resolve(account, path(named)).thenCompose(manifest -> stream(named, manifest,
                adapter -> Archive.tinker(manifest, upstream.fleet().model(manifest.baseModel())
                        .map(ModelInfo::reference).orElse(manifest.baseModel().value()), adapter)));
    }

    private interface Layout {
        Archive of(Archive.Member adapter);
    }

    /// Reads the whole blob before the response begins, so that a missing or damaged blob is reported as an
    /// error and not as a truncated archive.
    private CompletionStage<ApiResponse> stream(
            ListingEndpoints.CheckpointRef named, CheckpointManifest manifest,
            Layout layout) {
        return upstream.blocking(() -> {
            check(manifest.adapter());
            Archive archive = layout.of(new Archive.Member(manifest.adapter().bytes(),
                    () -> upstream.blobs().open(manifest.adapter())));
            return new ApiResponse.ByteStream("application/gzip", named.run() + "-" + named.name()
                    + ".tar.gz",
                    BlockingByteSource.of(blocking, archive::writeTo));
        });
    }

    private void check(BlobRef blob) {
        try (InputStream whole = upstream.blobs().open(blob)) {
            whole.transferTo(OutputStream.nullOutputStream());
        } catch (BlobMissing missing) {
            throw new Refusal(ErrorCode.BLOB_MISSING, missing.getMessage());
        } catch (BlobDamaged damaged) {
            throw new Refusal(ErrorCode.BLOB_DAMAGED, damaged.getMessage());
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
