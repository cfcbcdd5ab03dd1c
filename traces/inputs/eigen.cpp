#include <Eigen/Dense>
#include <Eigen/Sparse>
#include <Eigen/SparseLU>
#include <iostream>
template <typename Scalar, int Size> void solve() {
    using Matrix = Eigen::Matrix<Scalar, Size, Size>;
    Matrix a = Matrix::Random(8, 8), b = Matrix::Random(8, 8);
    std::cout << Eigen::JacobiSVD<Matrix>(a, Eigen::ComputeFullU | Eigen::ComputeFullV).singularValues().sum()
              << Eigen::BDCSVD<Matrix>(a).singularValues().sum()
              << Eigen::EigenSolver<Matrix>(a).eigenvalues().sum()
              << Eigen::GeneralizedEigenSolver<Matrix>(a, b).alphas().sum()
              << a.fullPivLu().solve(b).sum() << a.colPivHouseholderQr().solve(b).sum()
              << a.ldlt().solve(b).sum() << a.llt().solve(b).sum() << a.inverse().sum();
}
int main() {
    solve<double, Eigen::Dynamic>();
    solve<float, Eigen::Dynamic>();
}
