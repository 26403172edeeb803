package bios.coordinator.gateway;

import bios.protocol.Invalid;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.apache.pekko.http.javadsl.model.ContentType;
import org.apache.pekko.http.javadsl.model.ContentTypes;
import org.apache.pekko.http.javadsl.model.HttpHeader;
import org.apache.pekko.http.javadsl.model.HttpMethods;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.http.javadsl.model.headers.RawHeader;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Serves the tokenizer files of the base models in the way of the Hugging Face Hub, so that
/// `HF_ENDPOINT=<this service>` is enough for clients that load a tokenizer by the name of its model:
/// `/<model>/resolve/<revision>/<file>`, `/api/models/<model>` and `/api/models/<model>/tree/<revision>`.
/// Each model has one revision, and any name of a revision means it. A key is sent as `X-API-Key` or as
/// `Authorization: Bearer`.
final class TokenizerFiles {
    private static final Logger LOG = LoggerFactory.getLogger(TokenizerFiles.class);
    private static final int KEPT = 4;

    private final GatewayServices services;
    private final Callers callers;
    private final Map<ModelName, Repository> kept = LruMap.of(KEPT);

    TokenizerFiles(GatewayServices services, Callers callers) {
        this.services = services;
        this.callers = callers;
    }

    /// What a request asks for: a file, the list of files, or the description of a model.
    private sealed interface Wanted {
        record File(String model, String name) implements Wanted {}

        record Tree(String model, boolean root) implements Wanted {}

        record Info(String model) implements Wanted {}

        String model();
    }

    /// The tokenizer files of a model.
    ///
    /// @param fingerprint of the model whose files they are
    /// @param commit identifies the content of all files, as a commit of Git does
    private record Repository(Optional<String> fingerprint, String commit, Map<String, byte[]> files) {
        static Repository of(ModelInfo model, Map<String, byte[]> files) {
            var digest = DerivedIds.sha256();
            new TreeMap<>(files).forEach((name, content) -> {
                digest.update(DerivedIds.sha256(name));
                digest.update(content);
            });
            String commit = HexFormat.of().formatHex(digest.digest(), 0, 20);
            return new Repository(model.fingerprint(), commit, files);
        }
    }

    /// The response, if the request is one to the Hub.
    Optional<CompletionStage<HttpResponse>> answer(HttpRequest request) {
        boolean head = request.method().equals(HttpMethods.HEAD);
        if (!head && !request.method().equals(HttpMethods.GET)) return Optional.empty();
        return wanted(segments(request)).filter(w -> !head || w instanceof Wanted.File).map(wanted -> {
            if (callers.of(key(request)).isEmpty())
                return CompletableFuture.completedStage(problem(401, "",
                        "this service needs a key; set HF_TOKEN to it"));
            return repository(wanted.model()).thenApply(found -> found
                    .map(files -> answer(wanted, files))
                    .orElseGet(() -> problem(404, "RepoNotFound", "there is no model " + wanted.model()
                            + " with a tokenizer here"))).exceptionally(failed -> {
                                LOG.atWarn().setCause(failed).log("the tokenizer files cannot be read");
                                return problem(503, "", "no worker answers; retry later");
                            });
        });
    }

    private static List<String> segments(HttpRequest request) {
        var segments = new ArrayList<String>();
        try {
            request.getUri().pathSegments().forEach(segments::add);
        } catch (RuntimeException _) {
            return List.of(); // answered like any unknown path
        }
        return segments;
    }

    private static Optional<Wanted> wanted(List<String> path) {
        int resolve = path.indexOf("resolve");
        if (resolve > 0 && path.size() > resolve + 2)
            return Optional.of(new Wanted.File(String.join("/", path.subList(0, resolve)),
                    String.join("/", path.subList(resolve + 2, path.size()))));
        if (path.size() < 3 || !path.get(0).equals("api") || !path.get(1).equals("models"))
            return Optional.empty();
        List<String> rest = path.subList(2, path.size());
        int tree = rest.indexOf("tree");
        if (tree > 0) return Optional.of(new Wanted.Tree(String.join("/", rest.subList(0, tree)),
                rest.size() <= tree + 2));
        int revision = rest.indexOf("revision");
        return Optional.of(new Wanted.Info(String.join("/",
                revision > 0 ? rest.subList(0, revision) : rest)));
    }

    private static Optional<String> key(HttpRequest request) {
        return Accounts.keyIn(request.getHeader("X-API-Key").map(HttpHeader::value).orElse(null),
                request.getHeader("Authorization").map(HttpHeader::value).orElse(null));
    }

    private CompletionStage<Optional<Repository>> repository(String name) {
        ModelInfo model;
        try {
            model = services.directory().model(new ModelName(name)).orElse(null);
        } catch (Invalid _) {
            model = null;
        }
        if (model == null) return CompletableFuture.completedStage(Optional.empty());
        ModelInfo found = model;
        Repository remembered = kept.get(found.name());
        if (remembered != null && remembered.fingerprint().equals(found.fingerprint()))
            return CompletableFuture.completedStage(Optional.of(remembered));
        return CompletableFuture.completedStage(found).thenCompose(m -> services.engine(m.name(),
                EngineReply.TokenizerFiles.class,
                replyTo -> new EngineCommand.FetchTokenizerFiles(m.name(), replyTo)))
                .handle((reply, failed) -> {
                    if (failed == null) {
                        Repository files = Repository.of(found, reply.files());
                        kept.put(found.name(), files);
                        return CompletableFuture.completedStage(Optional.of(files));
                    }
                    return GatewayServices.cause(failed) instanceof ApiException error
                            && error.wireCode().equals("no_tokenizer")
                            ? CompletableFuture.completedStage(Optional.<Repository>empty())
                            : CompletableFuture.<Optional<Repository>>failedStage(failed);
                }).thenCompose(stage -> stage);
    }

    private static HttpResponse answer(Wanted wanted, Repository files) {
        HttpResponse response = switch (wanted) {
            case Wanted.File(_, var name) -> Optional.ofNullable(files.files().get(name))
                    .map(content -> file(name, content))
                    .orElseGet(() -> problem(404, "EntryNotFound", "there is no file " + name));
            case Wanted.Tree(_, boolean root) -> root ? json(new TreeMap<>(files.files()).entrySet().stream()
                    .map(file -> ApiResponse.object("type", "file", "path", file.getKey(), "size",
                            file.getValue().length, "oid", etag(file.getValue()))).toList())
                    : problem(404, "EntryNotFound", "there is no such folder");
            case Wanted.Info(var model) -> json(ApiResponse.object("_id", files.commit().substring(0, 24),
                    "id", model, "modelId", model, "sha", files.commit(), "private", false, "gated", false,
                    "disabled", false, "tags", List.of(), "downloads", 0, "likes", 0,
                    "siblings", files.files().keySet().stream().sorted()
                            .map(name -> ApiResponse.object("rfilename", name)).toList()));
        };
        return response.addHeader(RawHeader.create("X-Repo-Commit", files.commit()));
    }

    private static HttpResponse file(String name, byte[] content) {
        ContentType type = name.endsWith(".json") ? ContentTypes.APPLICATION_JSON
                : ContentTypes.APPLICATION_OCTET_STREAM;
        return HttpResponse.create().withEntity(type, content)
                .addHeader(RawHeader.create("ETag", "\"" + etag(content) + "\""));
    }

    private static String etag(byte[] content) {
        return HexFormat.of().formatHex(DerivedIds.sha256().digest(content), 0, 20);
    }

    private static HttpResponse json(Object body) {
        return HttpResponse.create().withEntity(ContentTypes.APPLICATION_JSON, JsonWriter.write(body));
    }

    /// @param named the error as the hub names it in a header; empty: it does not
    private static HttpResponse problem(int status, String named, String message) {
        HttpResponse response = HttpResponse.create().withStatus(status).withEntity(
                ContentTypes.APPLICATION_JSON, JsonWriter.write(ApiResponse.object("error", message)))
                .addHeader(RawHeader.create("X-Error-Message", message.replaceAll("[^ -~]", "?")));
        return named.isEmpty() ? response : response.addHeader(RawHeader.create("X-Error-Code", named));
    }
}
