package bios.coordinator.gateway;

import bios.coordinator.gateway.ApiRequest.BodyStream;
import bios.coordinator.gateway.Uploads.Upload;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelInfo;
import bios.protocol.run.Operation;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletionStage;
import java.util.function.Supplier;
import java.util.stream.Collectors;

/// Adapters that were made elsewhere: an upload is started, its files are sent to signed URLs, and it is
/// finished, which makes sampler weights of them. For that a run of its own loads the adapter, saves it, and
/// is unloaded; the engine that loads the adapter checks every shape and number.
final class UploadEndpoints {
    private static final String ID = "upload_id";
    private static final String DEFAULT_NAME = "uploaded";
    private final GatewayServices services;
    private final RunEndpoints creation;
    private final RunClient runs;
    private final AuditLog audit;
    private final Quotas quotas;
    private final SignedUrls urls;
    private final Supplier<UUID> ids;
    private final Uploads uploads;
    private final CheckpointRuns adapters;
    private final JsonReader reader;

    UploadEndpoints(GatewayServices services, RunEndpoints creation, RunClient runs, AuditLog audit,
            Quotas quotas, SignedUrls urls, Supplier<UUID> ids) {
        this.services = services;
        this.creation = creation;
        this.runs = runs;
        this.audit = audit;
        this.quotas = quotas;
        this.urls = urls;
        this.ids = ids;
        this.uploads = new Uploads(services.blobs());
        this.adapters = new CheckpointRuns(services);
        this.reader = new JsonReader(services.settings().maxNesting(), services.settings().maxBodyBytes());
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.post("external_weights_upload_start", this::start),
                Endpoint.put("external_weights_uploads/*/*", this::put).streaming().withoutKey(),
                Endpoint.post("external_weights_upload_finish", this::finish));
    }

    /// What an upload was started for.
    ///
    /// @param rank of the adapter, if the caller has said it
    private record Asked(ModelInfo model, Optional<Integer> rank, Optional<String> project,
            CheckpointName name, Optional<Long> ttl, String metadata) {
        /// The same as [#asked] reads it again.
        byte[] stored() {
            return JsonWriter.write(ApiResponse.object("base_model", model.name().value(), "lora_config",
                    rank.map(r -> Map.of("rank", r)), "destination_project_id", project, "name",
                    name.value(), "ttl_seconds", ttl, "user_metadata", JsonWriter.raw(metadata)));
        }
    }

    /// Reads what is asked for, from the request that starts an upload and from what was stored of it.
    private Asked asked(Fields fields) {
        ModelInfo model = services.model(fields.at("base_model"), fields.string("base_model"), true);
        Optional<Integer> rank = fields.optionalObject("lora_config").flatMap(lora -> {
            Optional<Long> given = lora.optionalInteger("rank", 1, LoraSpec.MAX_RANK);
            // The adapter itself says the rest.
            for (String ignored : List.of("seed", "train_mlp", "train_attn", "train_unembed", "alpha",
                    "target_modules")) lora.optional(ignored);
            lora.requireAllRead();
            return given.map(Math::toIntExact);
        });
        Optional<String> project = ServiceEndpoints.project(fields, "destination_project_id");
        String name = fields.optionalString("name").orElse(DEFAULT_NAME);
        Optional<Long> ttl = fields.optionalInteger("ttl_seconds", 1, TrainingEndpoints.MAX_TTL_SECONDS);
        String metadata = fields.optionalJsonText("user_metadata", services.settings().maxMetadataBytes())
                .orElse("{}");
        fields.requireAllRead();
        return new Asked(model, rank, project, Fields.reportAt(fields.at("name"), () ->
                new CheckpointName(name)), ttl, metadata);
    }

    private CompletionStage<ApiResponse> start(ApiRequest call) {
        byte[] asked = asked(call.bodyFields()).stored();
        if (asked.length > Uploads.MOST_START_BYTES)
            throw new ApiException(ErrorCode.INVALID, "user_metadata", "has too many bytes: an upload is"
                    + " started with at most " + Uploads.MOST_START_BYTES);
        long now = services.clock().millis();
        var id = new Uploads.Id(now + services.settings().uploadAge().toMillis(), ids.get());
        return quotas.checkStored(call.account()).thenCompose(_ -> services.runBlocking(() -> {
            int most = services.settings().maxUploads();
            if (uploads.pending(call.account(), now).uploads() >= most)
                throw new ApiException(ErrorCode.LIMIT_REACHED, "account '" + call.account() + "' has " + most
                        + " uploads under way, which is the limit (bios.gateway.max-uploads); finish some, or"
                        + " wait until they are over");
            uploads.start(call.account(), id, asked);
            return ApiResponse.ok(ID, id.toString(), "urls", signed(call, id), "expires",
                    ResponseBodies.time(id.endsMillis()));
        }));
    }

    /// The URL of each file.
    private LinkedHashMap<String, Object> signed(ApiRequest call, Uploads.Id id) {
        var all = new LinkedHashMap<String, Object>();
        for (String file : Uploads.FILES) {
            String url = urls.url(call, "external_weights_uploads/" + id + "/" + file, id.endsMillis());
            all.put(file, call.expectsUploadHeaders()
                    ? ApiResponse.object("url", url, "headers", new LinkedHashMap<String, Object>()) : url);
        }
        return all;
    }

    private CompletionStage<ApiResponse> put(ApiRequest call) {
        String file = call.pathParameters().get(1);
        long now = services.clock().millis();
        String path = "external_weights_uploads/" + call.pathParameters().get(0) + "/" + file;
        String account = urls.account(call, path, now, "start the upload again");
        Uploads.Id id = Uploads.Id.parse(call.pathParameters().get(0)).orElseThrow();
        BodyStream body = call.stream().orElseThrow();
        long most = file.equals(Uploads.CONFIG) ? UploadedAdapter.MOST_CONFIG_BYTES
                : services.settings().maxUploadBytes();
        if (body.bytes().orElse(0) > most) throw tooLarge(file, most);
        return quotas.checkStored(account, () -> uploads.pending(account, now).bytes()
                + body.bytes().orElse(0)).thenCompose(_ -> services.runBlocking(() -> {
                    BlobRef stored;
                    try (InputStream in = new UploadStream(body.open().get(), file, most)) {
                        stored = uploads.put(account, id, file, in::transferTo);
                    }
                    return ApiResponse.ok("file", file, "size_bytes", stored.bytes(), "sha256",
                            stored.id().sha256());
                }));
    }

    private static ApiException tooLarge(String file, long most) {
        return new ApiException(ErrorCode.BODY_TOO_LARGE, file, "is larger than " + most + " bytes");
    }

    /// The body of an upload. A body that is too long is refused, and a connection that ends too early is an
    /// error of the request and not of the store.
    private static final class UploadStream extends FilterInputStream {
        private final String file;
        private final long most;
        private long read;

        UploadStream(InputStream in, String file, long most) {
            super(in);
            this.file = file;
            this.most = most;
        }

        @Override public int read() {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
        }

        @Override public int read(byte[] into, int offset, int count) {
            try {
                int n = in.read(into, offset, count);
                read += Math.max(0, n);
                if (read > most) throw tooLarge(file, most);
                return n;
            } catch (IOException broken) {
                throw new ApiException(ErrorCode.INVALID, file,
                        "the connection ended before the file did; send it again");
            }
        }
    }

    private CompletionStage<ApiResponse> finish(ApiRequest call) {
        Fields fields = call.bodyFields();
        String id = fields.string(ID);
        fields.requireAllRead();
        return services.runBlocking(() -> Uploads.Id.parse(id)
                .flatMap(parsed -> uploads.find(call.account(), parsed, services.clock().millis()))
                .orElseThrow(() -> new ApiException(ErrorCode.NOT_FOUND, ID, "there is no upload '" + id
                        + "', or it is over; start it again"))).thenCompose(upload -> {
                            Asked asked = asked(Fields.ofRequest(
                                    reader.read(upload.start(), call.heap())));
                            return finish(call, upload, asked);
                        });
    }

    private CompletionStage<ApiResponse> finish(ApiRequest call, Upload upload, Asked asked) {
        RunId run = DerivedIds.run(asked.model().name(), upload.id().uuid().toString(), 0);
        return adapters.make(call, new CheckpointRuns.Order(run, asked.name(), Optional.empty(), ID,
                Uploads.WEIGHTS, "start another upload", "finish the upload again",
                () -> submitted(call, upload, asked, run)))
                .thenCompose(manifest -> made(call, upload, manifest));
    }

    /// Checks the files, and submits the operations that make a checkpoint of them.
    private CompletionStage<?> submitted(ApiRequest call, Upload upload, Asked asked, RunId run) {
        String session = upload.id().uuid().toString();
        return services.runBlocking(() -> checked(call, upload, asked)).thenCompose(adapter -> {
            var config = new RunConfig(run, call.account(), asked.model().name(), adapter.lora(), true,
                    Optional.empty(), asked.metadata(), session, services.clock().millis(),
                    asked.model().fingerprint());
            BlobRef weights = upload.file(Uploads.WEIGHTS);
            return quotas.checkStored(call.account(), weights::bytes)
                    .thenCompose(_ -> services.session(session, SessionReply.Described.class, replyTo ->
                            new SessionCommand.Open(call.account(), List.of(), "{}", "upload",
                                    services.clock().millis(), asked.project(), replyTo)))
                    .thenCompose(_ -> creation.create(call, config))
                    .thenCompose(_ -> services.runBlocking(() -> copied(run, adapter, weights)))
                    .thenCompose(copy -> runs.submitOnce(call, run, CheckpointRuns.LOAD,
                            new Operation.LoadUpload(asked.name(), copy, adapter.lora()),
                            weights.id().sha256() + adapter.lora()))
                    .thenCompose(_ -> runs.submit(call, run, CheckpointRuns.SAVE,
                            new Operation.SaveSamplerWeights(Optional.of(asked.name()), asked.ttl(),
                                    Optional.empty()), ""));
        });
    }

    private UploadedAdapter checked(ApiRequest call, Upload upload, Asked asked) throws IOException {
        byte[] config = services.blobs().readSmall(upload.file(Uploads.CONFIG),
                UploadedAdapter.MOST_CONFIG_BYTES);
        BlobRef weights = upload.file(Uploads.WEIGHTS);
        Set<String> served = services.directory().servedModels().stream().map(m -> m.name().value())
                .collect(Collectors.toSet());
        try (InputStream tensors = services.blobs().open(weights)) {
            UploadedAdapter adapter = UploadedAdapter.read(config, tensors, weights.bytes(), asked.model(),
                    served, call.heap());
            asked.rank().filter(rank -> rank != adapter.lora().rank()).ifPresent(rank -> {
                throw new ApiException(ErrorCode.INVALID, Uploads.CONFIG + ".r", "is " + adapter.lora().rank()
                        + ", but the upload was started with lora_config.rank = " + rank);
            });
            return adapter;
        }
    }

    /// Copies the weights into the scope of the run; the run deletes the copy when it has loaded it.
    private BlobRef copied(RunId run, UploadedAdapter adapter, BlobRef weights) {
        String scope = BlobScope.operation(run, CheckpointRuns.LOAD, services.clock().millis(),
                ids.get().toString());
        return services.blobs().put(scope, out -> {
            try (InputStream in = services.blobs().open(weights)) {
                adapter.writeTo(in, out);
            }
        });
    }

    private CompletionStage<ApiResponse> made(ApiRequest call, Upload upload, CheckpointManifest manifest) {
        var path = new CheckpointPath(manifest.run(), Optional.of(CheckpointKind.SAMPLER),
                manifest.name().orElseThrow());
        return services.runBlocking(() -> {
            uploads.finished(call.account(), upload.id());
            return ApiResponse.ok("tinker_path", path.tinkerUri(), "path", path.biosUri(),
                    "lora_rank", manifest.lora().rank(), "size_bytes", manifest.bytes());
        }).thenCompose(audit.record(call, "upload_weights", Optional.of(manifest.run()), Optional.of(path),
                "upload " + upload.id()));
    }
}
