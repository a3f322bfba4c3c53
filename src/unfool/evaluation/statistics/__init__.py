"""Statistics: intervals, paired comparisons and sequential tests for accuracies."""
