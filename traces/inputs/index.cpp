#include <algorithm>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <vector>
int main() {
    std::map<std::string, std::vector<int>> lines;
    std::regex word("[A-Za-z]+");
    std::string line;
    for (int number = 1; std::getline(std::cin, line); ++number)
        for (std::sregex_iterator match(line.begin(), line.end(), word), end; match != end; ++match)
            lines[match->str()].push_back(number);
    std::vector<std::pair<std::size_t, std::string>> order;
    for (auto const &entry : lines) order.emplace_back(entry.second.size(), entry.first);
    std::sort(order.rbegin(), order.rend());
    for (auto const &[count, text] : order) std::cout << text << ' ' << count << '\n';
}
