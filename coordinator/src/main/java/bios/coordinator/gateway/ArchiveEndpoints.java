package bios.coordinator.gateway;

import bios.coordinator.gateway.ApiResponse.ByteStream.Part;
import bios.coordinator.gateway.ListingEndpoints.CheckpointRef;
import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobMissing;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;

/// Checkpoint archive downloads. The route with an API key returns a signed URL, or the archive itself if the
/// client accepts `application/gzip`. The signed URL needs no API key.
final class ArchiveEndpoints {
    private final GatewayServices services;
    private final RunClient runs;
    private final AuditLog audit;
    private final SignedUrls urls;
    private final PublicUrl publicUrl;
    private final Executor blockingExecutor;

    ArchiveEndpoints(GatewayServices services, RunClient runs, AuditLog audit, SignedUrls urls,
            PublicUrl publicUrl, Executor blockingExecutor) {
        this.services = services;
        this.runs = runs;
        this.audit = audit;
        this.urls = urls;
        this.publicUrl = publicUrl;
        this.blockingExecutor = blockingExecutor;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("training_runs/*/checkpoints/*/*/archive", this::archiveOrLink),
                Endpoint.get("archives/*/*/*", this::downloadBySignedUrl).withoutKey(),
                Endpoint.get("training_runs/*/checkpoints/*/*/external_weights_urls", this::fileLinks),
                Endpoint.get("external_weights/*/*/*/*", this::downloadFile).withoutKey());
    }

    private CompletionStage<ApiResponse> archiveOrLink(ApiRequest call) {
        CheckpointRef ref = CheckpointRef.of(call.pathParameters());
        CompletionStage<CheckpointManifest> found = runs.resolve(call.account(), ref.path());
        CompletionStage<ApiResponse> answer = found.thenCompose(manifest -> {
            if (!call.accepts("application/gzip")) return CompletableFuture.completedStage(link(call, ref));
            ModelInfo model = services.model(FieldPath.BODY, manifest.baseModel().value(), true);
            return tokenizer(model).thenCompose(files -> stream(call, ref, manifest, "bios",
                    adapter -> Archive.inBiosFormat(manifest, adapter, files)));
        });
        return answer.thenCompose(audit.record(call, "download_checkpoint", ref.path()));
    }

    /// The tokenizer's files; an empty map for a base model without a tokenizer.
    private CompletionStage<Map<String, byte[]>> tokenizer(ModelInfo model) {
        return services.engine(model.name(), EngineReply.TokenizerFiles.class,
                replyTo -> new EngineCommand.FetchTokenizerFiles(model.name(), replyTo))
                .thenApply(EngineReply.TokenizerFiles::files)
                .exceptionallyCompose(failed -> GatewayServices.cause(failed) instanceof ApiException error
                        && error.wireCode().equals("no_tokenizer")
                        ? CompletableFuture.completedStage(Map.of()) : CompletableFuture.failedStage(failed));
    }

    /// The part of the URL that the signature covers.
    private static String signedPath(CheckpointRef ref) {
        return ref.run() + "/" + ref.kind().segment() + "/" + ref.name();
    }

    private ApiResponse link(ApiRequest call, CheckpointRef ref) {
        long expires = services.clock().millis() + services.settings().archiveUrlLifetime().toMillis();
        String root = publicUrl.root(call.headers().getOrDefault("host", ""));
        String token = urls.sign(signedPath(ref), call.account(), expires);
        return ApiResponse.ok(
                "url", root + "/api/v1/archives/" + signedPath(ref) + "?token=" + token,
                "expires", ResponseBodies.time(expires));
    }

    private CompletionStage<ApiResponse> downloadBySignedUrl(ApiRequest call) {
        CheckpointRef ref = CheckpointRef.of(call.pathParameters());
        String account = urls.verify(signedPath(ref), call.query().getOrDefault("token", ""),
                services.clock().millis()).orElseThrow(ArchiveEndpoints::expired);
        return runs.resolve(account, ref.path()).thenCompose(manifest -> stream(call, ref, manifest, "tinker",
                adapter -> Archive.inTinkerFormat(manifest, adapter)));
    }

    /// A signed URL of each file of the adapter.
    private CompletionStage<ApiResponse> fileLinks(ApiRequest call) {
        CheckpointRef ref = CheckpointRef.of(call.pathParameters());
        return runs.resolve(call.account(), ref.path()).thenApply(_ -> {
            long expires = services.clock().millis() + services.settings().archiveUrlLifetime().toMillis();
            String root = publicUrl.root(call.headers().getOrDefault("host", ""));
            var links = new TreeMap<String, Object>();
            for (String file : Uploads.FILES) {
                String path = signedPath(ref) + "/" + file;
                links.put(file, root + "/api/v1/external_weights/" + path + "?token="
                        + urls.sign(path, call.account(), expires));
            }
            return ApiResponse.ok("urls", links, "expires", ResponseBodies.time(expires));
        }).thenCompose(audit.record(call, "download_checkpoint", ref.path()));
    }

    private CompletionStage<ApiResponse> downloadFile(ApiRequest call) {
        CheckpointRef ref = CheckpointRef.of(call.pathParameters());
        String file = call.pathParameters().get(3);
        String account = urls.verify(signedPath(ref) + "/" + file, call.query().getOrDefault("token", ""),
                services.clock().millis()).orElseThrow(ArchiveEndpoints::expired);
        return runs.resolve(account, ref.path()).thenCompose(manifest -> services.runBlocking(() -> {
            verifyReadable(manifest.adapter());
            Archive.Member member = Archive.peftFiles(manifest, new Archive.Member(
                    manifest.adapter().bytes(), () -> services.blobs().open(manifest.adapter())))
                    .members().get(file);
            String tag = tag(manifest, file);
            Optional<Part> part = call.restFrom(tag).map(from -> new Part(from, member.bytes()))
                    .filter(rest -> rest.from() < rest.total());
            long skipped = part.map(Part::from).orElse(0L);
            return new ApiResponse.ByteStream("application/octet-stream", file, tag, part,
                    BlockingByteSource.of(blockingExecutor, out -> {
                        try (InputStream in = member.open().get()) {
                            in.skipNBytes(skipped);
                            in.transferTo(out);
                        }
                    }));
        }));
    }

    private static ApiException expired() {
        return new ApiException(ErrorCode.LINK_EXPIRED,
                "the link is invalid or has expired; request a new link");
    }

    private interface ArchiveFactory {
        Archive create(Archive.Member adapter);
    }

    /// Reads the whole blob before the response begins, so that a missing or damaged blob is reported as an
    /// error and not as a truncated archive.
    private CompletionStage<ApiResponse> stream(ApiRequest call, CheckpointRef ref,
            CheckpointManifest manifest, String format, ArchiveFactory factory) {
        return services.runBlocking(() -> {
            verifyReadable(manifest.adapter());
            Archive archive = factory.create(new Archive.Member(manifest.adapter().bytes(),
                    () -> services.blobs().open(manifest.adapter())));
            String tag = tag(manifest, format);
            Optional<Part> part = call.restFrom(tag).map(from -> new Part(from, bytes(archive)))
                    .filter(rest -> rest.from() < rest.total());
            long skipped = part.map(Part::from).orElse(0L);
            String name = ref.run() + "-" + ref.name() + ".tar.gz";
            return new ApiResponse.ByteStream("application/gzip", name, tag, part,
                    BlockingByteSource.of(blockingExecutor,
                            out -> archive.writeTo(skipped == 0 ? out : new Rest(out, skipped))));
        });
    }

    /// Names the bytes of an archive: the same adapter in the same format, compressed by the same library.
    private static String tag(CheckpointManifest manifest, String format) {
        String content = manifest.adapter().id() + " " + manifest.step() + " " + manifest.createdAtMillis()
                + " " + format + " " + Runtime.version();
        return UUID.nameUUIDFromBytes(content.getBytes(StandardCharsets.UTF_8)).toString();
    }

    /// The size of an archive, which is known once it has been written.
    private static long bytes(Archive archive) {
        var counted = new Rest(OutputStream.nullOutputStream(), 0);
        try {
            archive.writeTo(counted);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
        return counted.written;
    }

    /// Counts the bytes that are written, and passes on those from an offset.
    private static final class Rest extends OutputStream {
        private final OutputStream out;
        private final long from;
        private long written;

        Rest(OutputStream out, long from) {
            this.out = out;
            this.from = from;
        }

        @Override public void write(int one) throws IOException {
            if (written++ >= from) out.write(one);
        }

        @Override public void write(byte[] bytes, int offset, int count) throws IOException {
            int skipped = Math.clamp(from - written, 0, count);
            if (skipped < count) out.write(bytes, offset + skipped, count - skipped);
            written += count;
        }

        @Override public void flush() throws IOException {
            out.flush();
        }
    }

    private void verifyReadable(BlobRef blob) {
        try (InputStream whole = services.blobs().open(blob)) {
            whole.transferTo(OutputStream.nullOutputStream());
        } catch (BlobMissing missing) {
            throw new ApiException(ErrorCode.BLOB_MISSING, missing.getMessage());
        } catch (BlobDamaged damaged) {
            throw new ApiException(ErrorCode.BLOB_DAMAGED, damaged.getMessage());
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
