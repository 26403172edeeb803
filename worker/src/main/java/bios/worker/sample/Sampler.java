package bios.worker.sample;

import static bios.protocol.Require.require;

import bios.protocol.Fault;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.worker.adapter.Adapter;
import bios.worker.device.Device;
import bios.worker.device.Span;
import bios.worker.device.Tensor;
import bios.worker.model.BaseModel;
import bios.worker.model.KeyValueCache;
import bios.worker.model.KeyValuePages;
import bios.worker.model.Step;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Function;

/// Decodes many sequences of one base model at once, of any adapters (continuous batching, Yu et al. 2022,
/// over pages of keys and values, Kwon et al. 2023). Each [#step] puts one token of every decoding sequence
/// and parts of new prompts through the model together.
/// A sequence is admitted when pages are free for all of it so far. When pages run out, the latest sequence
/// gives its own back, waits, and later goes through the model again from its first token: that costs time,
/// never bits. Sequences of one request share the pages of their prompt.
///
/// Used by the thread that owns the device.
public final class Sampler implements AutoCloseable {
    private final BaseModel model;
    private final Device on;
    private final Optional<Function<int[], String>> decoder;
    private final SamplerSettings settings;
    private final KeyValuePages pages;
    private final Drawing drawing;
    private final TreeSet<Sequence> waiting = new TreeSet<>(Sequence.EARLIEST);
    private final TreeSet<Sequence> active = new TreeSet<>(Sequence.EARLIEST);
    private final Map<Long, Request> requests = new HashMap<>();
    private long tickets;
    private long places;

    /// @param decoder text of tokens, for stop strings; empty when the model has no tokenizer
    public Sampler(BaseModel model, Optional<Function<int[], String>> decoder, SamplerSettings settings) {
        this.model = model;
        this.on = model.device();
        this.decoder = decoder;
        this.settings = settings;
        // No more than all sequences could ever fill.
        long most = Math.ceilDiv(model.spec().contextLength(), Span.BLOCK) * (long) settings.maxSequences();
        long affordable = settings.cacheBytes() / KeyValuePages.pageBytes(model.spec());
        int limit = (int) Math.clamp(affordable, 1, Math.min(most, Integer.MAX_VALUE));
        this.pages = new KeyValuePages(model.spec(), on, limit);
        this.drawing = new Drawing(model, settings.logitRows());
    }

    /// A request that is done.
    ///
    /// @param ticket what [#submit] gave for it
    public record Finished(long ticket, SampleResult result) {}

    /// Most tokens of one sequence, prompt included: the context, or less when the cache is smaller.
    public int capacity() {
        return (int) Math.min(model.spec().contextLength(), (long) pages.limit() * Span.BLOCK);
    }

    /// Why a task can never be served here; empty when it can.
    public Optional<Fault> refusal(SampleTask task) {
        int words = model.spec().vocabularySize();
        int[] prompt = task.prompt();
        if (prompt.length == 0) return refuse("prompt is empty; give at least one token");
        for (int i = 0; i < prompt.length; i++)
            if (prompt[i] < 0 || prompt[i] >= words) return refuse("prompt holds " + prompt[i]
                    + " at position " + i + "; token ids of this model are 0 to " + (words - 1));
        if (task.numSamples() < 1)
            return refuse("num_samples is " + task.numSamples() + "; ask for at least 1");
        if (task.topkPromptLogprobs() < 0)
            return refuse("topk_prompt_logprobs is " + task.topkPromptLogprobs() + "; expected 0 or more");
        if (!task.params().stopStrings().isEmpty() && decoder.isEmpty())
            return refuse("sampling_params.stop holds text, but " + model.info().name()
                    + " has no tokenizer.json; stop at token ids instead");
        return tooLong(prompt.length, task.params().maxTokens().orElse(1));
    }

    private Optional<Fault> tooLong(int prompt, int tokens) {
        String both = "a prompt of " + prompt + " tokens and max_tokens of " + tokens + " exceed ";
        long most = (long) prompt + tokens;
        int context = model.spec().contextLength();
        if (most > context) return refuse(both + "the model's context of " + context
                + "; shorten the prompt or lower max_tokens");
        if (most > capacity())
            return refuse(both + "the " + capacity() + " tokens that this worker's cache holds;"
                    + " shorten the prompt, lower max_tokens, or raise bios.engine.sampler.cache-bytes");
        return Optional.empty();
    }

    private static Optional<Fault> refuse(String message) {
        return Optional.of(Fault.user("invalid_request", message));
    }

    /// Takes a task that has no [#refusal]. Computes nothing.
    ///
    /// @param adapter stays open until the task is finished
    /// @return names the task in [Finished]
    public long submit(SampleTask task, Optional<Adapter> adapter) {
        require(refusal(task).isEmpty(), "a task that cannot be served: %s", refusal(task));
        int limit = task.params().maxTokens().orElse(capacity() - task.prompt().length);
        Request request = new Request(++tickets, task, adapter, model.spec().endTokens(), limit,
                decoder.orElse(_ -> {
                    throw new IllegalStateException("no tokenizer");
                }));
        for (int i = 0; i < task.numSamples(); i++) request.sequences.add(new Sequence(request, i, ++places));
        requests.put(request.ticket, request);
        waiting.add(request.sequences.getFirst());
        return request.ticket;
    }

    /// Sequences waiting or decoding.
    public int queued() {
        return (int) requests.values().stream().flatMap(r -> r.sequences.stream()).filter(s -> !s.ended())
                .count();
    }

    /// Whether [#step] has nothing to do.
    public boolean idle() {
        return requests.isEmpty();
    }

    /// Pages that no sequence holds, and all pages.
    public record Pages(int free, int limit) {}

    /// How full the cache is.
    public Pages pages() {
        return new Pages(pages.free(), pages.limit());
    }

    /// One pass. When it throws, [#abandon] must follow.
    ///
    /// @return the requests that are done
    public List<Finished> step() {
        admit();
        List<Part> parts = grouped(plan());
        if (parts.isEmpty()) return List.of();
        try (Device.Scope scope = on.scope()) {
            Tensor hidden = model.forwardCached(scope, parts.stream().map(Part::step).toList());
            int row = 0;
            List<Drawing.Row> rows = new ArrayList<>();
            for (Part part : parts) {
                drawing.score(part.sequence, hidden.rows(row, part.count));
                row += part.count;
                if (part.sequence.pending() == 0) rows.add(new Drawing.Row(row - 1, drawers(part.sequence)));
            }
            drawing.draw(hidden, rows);
            rows.forEach(r -> settle(r.drawers()));
        }
        return finished();
    }

    /// Gives up the requests that have a part in decoding; those that only wait go on.
    ///
    /// @return their tickets
    public List<Long> abandon() {
        Set<Long> given = new HashSet<>();
        active.forEach(s -> given.add(s.request.ticket));
        active.forEach(Sequence::release);
        active.clear();
        waiting.removeIf(s -> given.contains(s.request.ticket));
        given.forEach(requests::remove);
        return given.stream().sorted().toList();
    }

    /// `count` next tokens of a sequence.
    private record Part(Sequence sequence, int count) {
        Step step() {
            return new Step(sequence.next(count), sequence.cache().orElseThrow(), sequence.request.adapter);
        }
    }

    /// Begins waiting sequences in their order. A page for each decoding sequence is
    /// left, which it may need soon.
    private void admit() {
        while (!waiting.isEmpty() && active.size() < settings.maxSequences()) {
            Sequence next = waiting.first();
            int needed = Math.ceilDiv(next.length(), Span.BLOCK);
            if (needed + active.size() > pages.free()) return;
            KeyValueCache cache = pages.open();
            require(cache.reserve(next.length()), "free pages are gone");
            next.give(cache);
            waiting.pollFirst();
            active.add(next);
        }
    }

    /// One token of each decoding sequence, then parts of prompts up to the budget.
    private List<Part> plan() {
        List<Part> parts = new ArrayList<>();
        for (Sequence s : List.copyOf(active))
            if (s.cache().isPresent() && s.pending() == 1 && reserved(s)) parts.add(new Part(s, 1));
        int left = settings.passTokens() - parts.size();
        for (Sequence s : active) {
            if (s.pending() == 1 || left <= 0) continue;
            int count = Math.min(s.pending(), left);
            parts.add(new Part(s, count));
            left -= count;
        }
        return parts;
    }

    /// Finds room for one more token, at the cost of the latest sequences; false when
    /// it is itself the latest.
    private boolean reserved(Sequence s) {
        while (!s.cache().orElseThrow().reserve(1)) {
            Sequence victim = active.last();
            require(active.size() > 1, "a sequence of %d tokens does not fit into %d pages", s.length(),
                    pages.limit());
            victim.release();
            active.remove(victim);
            waiting.add(victim);
            if (victim == s) return false;
        }
        return true;
    }

    /// Adapters together: they share products.
    private static List<Part> grouped(List<Part> parts) {
        Map<Adapter, Integer> order = new IdentityHashMap<>();
        for (Part p : parts)
            p.sequence.request.adapter.ifPresent(a -> order.putIfAbsent(a, order.size() + 1));
        return parts.stream()
                .sorted(Comparator.comparing(p -> p.sequence.request.adapter.map(order::get).orElse(0)))
                .toList();
    }

    /// Who draws from the row behind a sequence's last token: behind the prompt, all of the request
    /// that have not drawn yet.
    private static List<Sequence> drawers(Sequence first) {
        if (first.index != 0 || first.drawn() != 0) return List.of(first);
        return first.request.sequences;
    }

    /// Lets those that have drawn their first token go on with copies of the first one's cache, or wait.
    private void settle(List<Sequence> drawers) {
        Sequence first = drawers.getFirst();
        for (Sequence s : drawers.subList(1, drawers.size())) {
            if (s.ended()) continue;
            boolean room = active.size() < settings.maxSequences();
            Optional<KeyValueCache> copy = room ? first.cache().orElseThrow().fork() : Optional.empty();
            copy.ifPresent(s::give);
            (copy.isPresent() ? active : waiting).add(s);
        }
        for (Sequence s : drawers)
            if (s.ended()) {
                s.release();
                active.remove(s);
            }
    }

    private List<Finished> finished() {
        List<Request> done = requests.values().stream().filter(Request::ended)
                .sorted(Comparator.comparingLong(r -> r.ticket)).toList();
        done.forEach(r -> requests.remove(r.ticket));
        return done.stream().map(r -> new Finished(r.ticket, r.result())).toList();
    }

    /// Gives up everything.
    @Override public void close() {
        active.forEach(Sequence::release);
        active.clear();
        waiting.clear();
        requests.clear();
        pages.close();
    }
}
