import Catalog

/// Scalar functions of the language. To add one: its file, and its line here.
let scalarFunctionList: [any ScalarFunction.Type] = [
  Abs.self, Round.self, Floor.self, Ceil.self, Log10.self,
  Lower.self, Upper.self, Length.self, StartsWith.self, EndsWith.self, Contains.self, Matches.self,
  Coalesce.self, If.self,
]

/// Aggregate functions of the language. To add one: its file, and its line here.
let aggregateFunctionList: [any AggregateFunction.Type] = [
  Count.self, Rate.self, Sum.self, Average.self, Minimum.self, Maximum.self, StandardDeviation.self,
  Quantile.self, Distinct.self, Top.self, First.self, Last.self, Exemplars.self, Increase.self,
]

/// Detector stages of the language. To add one: its file, and its line here.
let detectorList: [any Detector.Type] = [ZScore.self, Changed.self, Forecast.self, Absent.self]

/// What the checker is handed: every function that this build of the engine has, and the formats given.
public func makeCatalog(formats: [FormatSpec]) -> Catalog {
  Catalog(
    scalarFunctions: scalarFunctionList.map { $0.spec },
    aggregateFunctions: aggregateFunctionList.map { $0.spec }, formats: formats, cluster: Cluster.spec,
    detectors: detectorList.map { $0.spec })
}
