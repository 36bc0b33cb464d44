"""Task graphs: bind, InputNode, MultiOutputNode, execute; and what of them is refused."""

from __future__ import annotations

import importlib
import warnings

import pytest

from tests.conformance.subject import ray

dag = importlib.import_module(f"{ray.__name__}.dag")

pytestmark = pytest.mark.filterwarnings("ignore:DAGNode.execute:DeprecationWarning")


@ray.remote
def add(a, b=0):
    return a + b


@ray.remote
def count_up(counter):
    return ray.get(counter.up.remote())


@ray.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def up(self, by=1):
        self.value += by
        return self.value

    def get(self):
        return self.value

    @ray.method(num_returns=2)
    def twice(self, x):
        return x, x


def test_a_graph_of_functions_runs_when_it_is_executed_and_as_often() -> None:
    three = add.bind(1, 2)
    six = add.bind(three, b=three)
    assert isinstance(six, dag.DAGNode)
    assert isinstance(six, dag.FunctionNode)
    reference = six.execute()
    assert isinstance(reference, ray.ObjectRef)
    assert ray.get([reference, six.execute()]) == [6, 6]


def test_a_node_whose_result_two_others_take_runs_once() -> None:
    counter = Counter.remote()
    once = count_up.bind(counter)
    assert ray.get(add.bind(once, add.bind(once, 0)).execute()) == 2
    assert ray.get(counter.get.remote()) == 1


def test_the_input_is_what_execute_is_given() -> None:
    with dag.InputNode() as given:
        graph = add.bind(add.bind(given, 1), given)
    assert ray.get([graph.execute(1), graph.execute(10)]) == [3, 21]


def test_parts_of_the_input_are_its_arguments() -> None:
    with dag.InputNode() as given:
        graph = add.bind(given[0], given.x)
    assert ray.get(graph.execute(1, x=2)) == 3
    with dag.InputNode() as given:
        graph = add.bind(given[0], given["x"])
    assert ray.get(graph.execute(1, x=2)) == 3


class Both:
    left, right = 3, 4


def test_parts_of_one_argument_are_its_items_keys_and_attributes() -> None:
    with dag.InputNode() as given:
        assert ray.get(add.bind(given[0], given[1]).execute([1, 2])) == 3
        assert ray.get(add.bind(given["a"], given["b"]).execute({"a": 2, "b": 3})) == 5
        assert ray.get(add.bind(given.left, given.right).execute(Both())) == 7


@ray.remote
def total(parts):
    return sum(ray.get(list(parts["refs"]))) + parts["plain"]


def test_nodes_inside_lists_and_dicts_are_executed_and_their_references_not_resolved() -> None:
    parts = {"refs": [add.bind(1, 1), add.bind(2, 2)], "plain": 10}
    assert ray.get(total.bind(parts).execute()) == 16


def test_every_execution_makes_an_actor_of_its_own_and_its_calls_run_in_the_order_of_bind() -> None:
    actor = Counter.bind(10)
    before = actor.get.bind()
    actor.up.bind(2)  # its result is taken by nobody, and it runs all the same
    after = actor.get.bind()
    graph = add.bind(before, after)
    assert ray.get([graph.execute(), graph.execute()]) == [22, 22]


def test_a_class_alone_is_executed_to_a_handle() -> None:
    handle = Counter.bind(5).execute()
    assert isinstance(handle, ray.actor.ActorHandle)
    assert ray.get(handle.get.remote()) == 5


def test_methods_of_a_living_actor_are_bound_too() -> None:
    counter = Counter.remote()
    with dag.InputNode() as given:
        graph = counter.up.bind(given)
    assert isinstance(graph, dag.ClassMethodNode)
    assert ray.get([graph.execute(2), graph.execute(3)]) == [2, 5]


def test_a_bound_method_with_two_results_is_two_nodes() -> None:
    counter = Counter.remote()
    one, other = counter.twice.bind(4)
    assert ray.get(add.bind(one, other).execute()) == 8


def test_several_ends_give_a_list() -> None:
    with dag.InputNode() as given:
        graph = dag.MultiOutputNode([add.bind(given, 1), add.bind(given, 2)])
    assert ray.get(graph.execute(10)) == [11, 12]
    with pytest.raises(ValueError, match="Invalid input type for `args`"):
        dag.MultiOutputNode(add.bind(1))


def test_options_of_bound_calls_are_theirs() -> None:
    name = add.options(name="by another name").bind(1, 1)
    assert ray.get(name.execute()) == 2
    both = add.options(num_returns=2).bind((1,), (2,))
    assert isinstance(both.execute(), list)
    method = Counter.options(num_cpus=0).bind().twice.options(num_returns=2).bind(1)
    assert ray.get(method.execute()) == [1, 1]


def test_a_chain_of_500_nodes_is_executed() -> None:
    node = add.bind(0, 1)
    for _ in range(499):
        node = add.bind(node, 1)
    if ray.__name__ == "ray":
        pytest.skip("Ray walks the graph recursively, for minutes")
    assert ray.get(node.execute()) == 500


def test_the_input_is_no_argument_of_a_class() -> None:
    with dag.InputNode() as given, pytest.raises(ValueError, match=r"InputNode .*cannot be .*argument|InputNode handles user"):
        Counter.bind(given)


def test_a_node_is_neither_bound_again_nor_called() -> None:
    node = add.bind(1)
    with pytest.raises(AttributeError, match=r"\.bind\(\) cannot be used again on"):
        node.bind()
    with pytest.raises(AttributeError, match=r"\.execute\(\)"):
        node.remote()
    with pytest.raises(AttributeError, match=r"\.bind\(\)"):
        Counter.bind().get.remote()
    with pytest.raises(AttributeError):
        Counter.bind().no_such_method  # noqa: B018


@pytest.mark.differs("compiled-graphs", hangs=True)
def test_compiled_graphs_are_refused_with_what_works() -> None:
    with warnings.catch_warnings(), pytest.raises(NotImplementedError, match=r"experimental_compile.*execute\(\)"):
        Counter.remote().get.bind().experimental_compile()


@pytest.mark.differs("wrong-arguments-of-bind")
def test_wrong_arguments_are_an_error_where_they_are_bound() -> None:
    with pytest.raises(TypeError):
        add.bind(1, 2, 3)
    with pytest.raises(TypeError):
        Counter.bind(1, 2)
    with pytest.raises(TypeError):
        Counter.remote().up.bind(1, 2)
