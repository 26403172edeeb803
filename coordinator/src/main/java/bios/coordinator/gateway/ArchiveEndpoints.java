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
import java.util.function.LongSupplier;

/// Checkpoint archive downloads. The route with an API key returns a signed URL, or the archive itself if the
/// client accepts `application/gzip` and is not Tinker's. The signed URL needs no API key.
final class ArchiveEndpoints {
    private final GatewayServices services;
    private final RunClient runs;
    private final AuditLog audit;
    private final SignedUrls urls;
    private final Executor blockingExecutor;

    ArchiveEndpoints(GatewayServices services, RunClient runs, AuditLog audit, SignedUrls urls,
            Executor blockingExecutor) {
        this.services = services;
        this.runs = runs;
        this.audit = audit;
        this.urls = urls;
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
            if (!call.accepts("application/gzip") || !call.readsArchives())
                return CompletableFuture.completedStage(link(call, ref));
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

    private static String archivePath(CheckpointRef ref) {
        return "archives/" + ref.run() + "/" + ref.kind().segment() + "/" + ref.name();
    }

    private static String filePath(CheckpointRef ref, String file) {
        return "external_weights/" + ref.run() + "/" + ref.kind().segment() + "/" + ref.name() + "/" + file;
    }

    private long expiry() {
        return services.clock().millis() + services.settings().archiveUrlLifetime().toMillis();
    }

    /// A signed URL; Tinker's client until 0.22.1, which asks for `application/gzip`, reads it from a
    /// redirect.
    private ApiResponse link(ApiRequest call, CheckpointRef ref) {
        long expires = expiry();
        String url = urls.url(call, archivePath(ref), expires);
        return call.accepts("application/gzip") ? new ApiResponse.Redirect(url, expires)
                : ApiResponse.ok("url", url, "expires", ResponseBodies.time(expires));
    }

    private String signer(ApiRequest call, String path) {
        return urls.account(call, path, services.clock().millis(), "request a new link");
    }

    private CompletionStage<ApiResponse> downloadBySignedUrl(ApiRequest call) {
        CheckpointRef ref = CheckpointRef.of(call.pathParameters());
        String account = signer(call, archivePath(ref));
        return runs.resolve(account, ref.path()).thenCompose(manifest -> stream(call, ref, manifest, "tinker",
                adapter -> Archive.inTinkerFormat(manifest, adapter)));
    }

    /// A signed URL of each file of the adapter.
    private CompletionStage<ApiResponse> fileLinks(ApiRequest call) {
        CheckpointRef ref = CheckpointRef.of(call.pathParameters());
        return runs.resolve(call.account(), ref.path()).thenApply(_ -> {
            long expires = expiry();
            var links = new TreeMap<String, Object>();
            for (String file : Uploads.FILES)
                links.put(file, urls.url(call, filePath(ref, file), expires));
            return ApiResponse.ok("urls", links, "expires", ResponseBodies.time(expires));
        }).thenCompose(audit.record(call, "download_checkpoint", ref.path()));
    }

    private CompletionStage<ApiResponse> downloadFile(ApiRequest call) {
        CheckpointRef ref = CheckpointRef.of(call.pathParameters());
        String file = call.pathParameters().get(3);
        String account = signer(call, filePath(ref, file));
        return runs.resolve(account, ref.path()).thenCompose(manifest -> services.runBlocking(() -> {
            verifyReadable(manifest.adapter());
            Archive.Member member = Archive.peftFiles(manifest, new Archive.Member(
                    manifest.adapter().bytes(), () -> services.blobs().open(manifest.adapter())))
                    .members().get(file);
            return download(call, "application/octet-stream", file, tag(manifest, file), member::bytes,
                    (skipped, out) -> {
                        try (InputStream in = member.open().get()) {
                            in.skipNBytes(skipped);
                            in.transferTo(out);
                        }
                    });
        }));
    }

    /// Writes content without its first bytes.
    private interface Content {
        void writeTo(long skipped, OutputStream out) throws IOException;
    }

    /// A download, or the rest of one that broke off, as the client asks.
    ///
    /// @param tag names the content
    /// @param bytes of the whole content, which are counted only for the rest of a download
    private ApiResponse download(ApiRequest call, String type, String name, String tag, LongSupplier bytes,
            Content content) {
        Optional<Part> part = call.restFrom(tag).map(from -> new Part(from, bytes.getAsLong()))
                .filter(rest -> rest.from() < rest.total());
        long skipped = part.map(Part::from).orElse(0L);
        return new ApiResponse.ByteStream(type, name, tag, part,
                BlockingByteSource.of(blockingExecutor, out -> content.writeTo(skipped, out)));
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
            return download(call, "application/gzip", ref.run() + "-" + ref.name() + ".tar.gz",
                    tag(manifest, format), () -> bytes(archive), (skipped, out) ->
                            archive.writeTo(skipped == 0 ? out : new Rest(out, skipped)));
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
