// Walks the graph of graph.py breadth first, from one vertex after another.
#include <boost/graph/breadth_first_search.hpp>
#include <boost/graph/compressed_sparse_row_graph.hpp>
#include <cstddef>
#include <fstream>
#include <utility>
#include <vector>
using Edge = std::pair<std::size_t, std::size_t>;
int main() {
    std::ifstream file("edges.bin", std::ios::binary | std::ios::ate);
    std::vector<Edge> edges(file.tellg() / sizeof(Edge));
    file.seekg(0).read(reinterpret_cast<char *>(edges.data()), edges.size() * sizeof(Edge));
    const std::size_t vertices = edges.back().first + 1;
    boost::compressed_sparse_row_graph<boost::directedS> graph(
        boost::edges_are_sorted, edges.begin(), edges.end(), vertices);
    std::vector<std::size_t> parent(vertices), depth(vertices);
    const auto visitor = boost::make_bfs_visitor(
        std::make_pair(boost::record_predecessors(parent.data(), boost::on_tree_edge()),
                       boost::record_distances(depth.data(), boost::on_tree_edge())));
    for (std::size_t edge = 0; edge < edges.size(); edge += 1'000'003)
        boost::breadth_first_search(graph, edges[edge].first, boost::visitor(visitor));
}
