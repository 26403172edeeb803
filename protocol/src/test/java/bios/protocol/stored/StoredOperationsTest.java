package bios.protocol.stored;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.TensorData;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import net.jqwik.api.Arbitraries;
import net.jqwik.api.Arbitrary;
import net.jqwik.api.Combinators;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.Provide;

class StoredOperationsTest {
    @Property(tries = 300) void whatIsEncodedIsDecoded(@ForAll("operations") Operation operation) {
        byte[] encoded = StoredOperations.encode(operation);
        Operation again = StoredOperations.decode(OperationKind.of(operation), encoded);
        assertEquals(operation, again);
        assertArrayEquals(encoded, StoredOperations.encode(again));
    }

    @Property(tries = 50) void theOrderOfMapsDoesNotShow(@ForAll int[] tokens) {
        TensorData a = TensorData.of(1f);
        TensorData b = TensorData.of(2L);
        Map<String, TensorData> one = new LinkedHashMap<>(Map.of("x", a));
        one.put("a", b);
        Map<String, TensorData> two = new HashMap<>(one);
        assertArrayEquals(encoded(tokens, one), encoded(tokens, two));
    }

    private static byte[] encoded(int[] tokens, Map<String, TensorData> inputs) {
        return StoredOperations.encode(new Operation.ForwardBackward(List.of(new Datum(tokens, inputs)),
                LossFunction.CROSS_ENTROPY, Map.of(), false));
    }

    @Provide Arbitrary<Operation> operations() {
        Arbitrary<TensorData> tensors = Arbitraries.oneOf(
                Arbitraries.floats().array(float[].class).ofMaxSize(20).map(TensorData::of),
                Arbitraries.longs().array(long[].class).ofMaxSize(20).map(TensorData::of));
        Arbitrary<Datum> data = Combinators.combine(Arbitraries.integers().array(int[].class).ofMaxSize(30),
                Arbitraries.maps(Arbitraries.strings().alpha().ofMaxLength(8), tensors).ofMaxSize(3))
                .as(Datum::new);
        Arbitrary<Operation> evaluations = Combinators.combine(data.list().ofMaxSize(3),
                Arbitraries.of(LossFunction.values()), Arbitraries.maps(Arbitraries.strings().alpha(),
                        Arbitraries.doubles()).ofMaxSize(2), Arbitraries.of(true, false))
                .as(Operation.ForwardBackward::new);
        Arbitrary<Operation> steps = Arbitraries.doubles().between(0, 1).map(rate ->
                new Operation.OptimStep(Optional.of(new AdamParams(rate, 0.9, 0.95, rate / 10, 0, rate))));
        return Arbitraries.oneOf(evaluations, steps,
                Arbitraries.of(List.copyOf(Samples.operations().values())));
    }
}
